"""Recorded measurements: what each begins with, and how it is written and read."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from statemix.environment import describe
from statemix.text import encoded
from statemix.training.files import replace_file

NAME = "python -m benchmarks"

Record = dict[str, Any]


def header(bench: str, what: str, device: torch.device) -> Record:
    """What every record begins with: the benchmark, what its numbers mean, the command, date, device and versions."""
    command = encoded(shlex.join([*NAME.split(), *sys.argv[1:]]))
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
    """A record. FileNotFoundError without the file, ValueError for one that is not a record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not ("bench" in content or "versions" in content):
        raise ValueError(f"{path}: expected a record of `{NAME}` (JSON)")
    return content
