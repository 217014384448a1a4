"""Recorded measurements: what each begins with, and how it is written and read."""

from __future__ import annotations

import contextlib
import datetime
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from statemix.environment import describe
from statemix.training.files import replace_file

Record = dict[str, Any]

RENAMED = {
    "contestants": "implementations",
    "rivals": "baselines",
    "rival": "baseline",
    "ours": "layers",
    "times_ours": "relative_time",
    "left_out": "skipped",
    "ways": "modes",
    "capture": "mode",
    "side_by_side": "concurrent",
}
"""Keys of records written before 0.1.0, and their names since."""


RENAMED_COMMAND = {
    " benchmarks/": " benchmarks/records/",
    "statemix bench": "python -m benchmarks",
    "--rivals": "--baselines",
}
"""The same for their command lines."""


def header(bench: str, what: str, command: str, device: torch.device) -> Record:
    """What every record begins with: the benchmark, what its numbers mean, the command, date, device and versions."""
    record: Record = {"bench": bench, "what": what, "command": command}
    record["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record |= describe(str(device))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        record["cuda"] = torch.version.cuda
        record["capability"] = f"{properties.major}.{properties.minor}"
        record["multiprocessors"] = properties.multi_processor_count
        record["cache_bytes"] = properties.L2_cache_size
    return record


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; folders are made."""
    content = text.encode("utf-8", "backslashreplace")
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole or not at all; folders are made."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_record(path: Path) -> Record:
    """A record with today's keys. FileNotFoundError without the file, ValueError for one that is not a record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not ("bench" in content or "versions" in content):
        raise ValueError(f"{path}: expected a record of `python -m benchmarks` (JSON)")
    return modernize(content)


def modernize(record: Record) -> Record:
    """The record with today's keys."""
    old = RENAMED if record.get("bench") != "decode" else {}
    renamed: Record = _renamed(record, old)
    if renamed.get("bench") == "rivals":
        renamed |= {"bench": "baselines", **renamed.pop("environment")}
    if str(renamed.get("command")).startswith("statemix bench"):
        for before, after in RENAMED_COMMAND.items():
            renamed["command"] = renamed["command"].replace(before, after)
    return renamed


def _renamed(content: Any, names: dict[str, str]) -> Any:
    if isinstance(content, dict):
        return {names.get(key, key): _renamed(value, names) for key, value in content.items()}
    return [_renamed(one, names) for one in content] if isinstance(content, list) else content


def attempt(names: Record, device: torch.device, measure: Callable[[], Record]) -> Record:
    """A measured row with its names, or the names with the reason ("failed"): the others are still measured."""
    try:
        return names | measure()
    except Exception as error:  # compilers, drivers and foreign packages raise of every kind
        return names | {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    finally:
        free(device)


def free(device: torch.device) -> None:
    """Release memory that nothing holds. After a device error this fails silently, and the next call will say so."""
    if device.type == "cuda":
        gc.collect()
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
