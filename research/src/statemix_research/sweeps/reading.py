"""The files of a run as they are read back: each once, and a RunError that names what is damaged, and how."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemix.training import FINAL
from statemix.training.files import RunError, read_json, unseal
from statemix_research.sweeps import fields
from statemix_research.sweeps.fields import (
    COUNT,
    NUMBER,
    SHARE,
    STRING,
    TEXT,
    Field,
    first_wrong,
    one_of,
)
from statemix_research.sweeps.probes import PROBES

STATUS: dict[str, Field] = {"status": one_of((*FINAL, "interrupted"))}

NEEDED = {
    "train": (
        "step", "accuracy", "parameters", "mixer_parameters", "state_size", "best_accuracy", "seconds", "device",
        "torch",
    ),
    "throughput": ("step", "ms", "tokens_per_s", "device", "torch"),
}  # fmt: skip
"""What the summary of a run has, by the kind of job."""

METRIC: dict[str, Field] = {
    "kind": one_of(("train", "eval")), "step": COUNT, "split": TEXT, "length": COUNT, "loss": fields.or_none(NUMBER),
    "accuracy": fields.or_none(SHARE), "macro_accuracy": fields.or_none(SHARE), "lr": NUMBER,
}  # fmt: skip
"""What stands in a line of metrics."""

EVENT: dict[str, Field] = {
    "event": TEXT, "time": fields.matching("a time such as 2026-01-31T12:00:00+00:00", r"\d{4}-\d\d-\d\d.*"),
    "status": TEXT, "hardware": fields.OBJECT, "error": STRING, "traceback": STRING,
}  # fmt: skip
"""What stands in a line of a history."""

FACTS = {"ended": ("status", "hardware"), "failed": ("error",)}
"""What a line of a history has, by its event, beside the event and the time."""


def is_there(path: Path) -> bool:
    """Whether there is a file. RunError for whatever is no file of the run's own: a link, a folder, a pipe."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if stat.S_ISLNK(mode):
        raise RunError(f"{path} is a symbolic link, expected a file of the run's own")
    if not stat.S_ISREG(mode):
        raise RunError(f"{path} is not a file, expected one of the run's own")
    return True


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. RunError as `is_there`, and for a file that is missing or damaged."""
    is_there(path)
    try:
        return read_json(path)
    except RecursionError:
        raise RunError(f"{path} is damaged: it is nested too deep") from None


def read_summary(path: Path, kind: str) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do, else None. RunError for a damaged one."""
    if not is_there(path):
        return None
    summary = read_object(path)
    _expect(path, first_wrong(summary, STATUS, STATUS))
    if summary["status"] not in FINAL:
        return None
    _expect(path, first_wrong(summary, {**fields.SUMMARY, "accuracy": fields.SCORES}, NEEDED[kind]))
    return summary


def read_probe(path: Path, name: str, run: str) -> dict[str, Any] | None:
    """The result of a probe of a run, if there is one. RunError for a damaged file."""
    if not is_there(path):
        return None
    result = read_object(path)
    gives = PROBES[name].gives
    _expect(path, first_wrong(result, {**fields.PROBED, "run": one_of((run,))}, gives))
    return {key: result[key] for key in gives}


def read_history(path: Path, run: str) -> list[dict[str, Any]]:
    """The lines of a run's history, less one that was cut off by a kill. RunError for a damaged one."""
    if not is_there(path):
        return []
    lines, expected = [], {**EVENT, "run": one_of((run,))}
    for number, text in enumerate(_read(path).split(b"\n"), 1):
        if _cut_off(text):
            continue
        place = f"{path} line {number}"
        try:
            line = unseal(_parsed(place, text))
        except ValueError as error:
            raise RunError(f"{place} is damaged: {error}") from None
        _expect(place, first_wrong(line, expected, ("event", "time", *FACTS.get(str(line.get("event")), ()))))
        if "hardware" in line:
            _expect(place, first_wrong(line["hardware"], {"device": TEXT}, ("device",)))
        lines.append(line)
    return lines


def _cut_off(text: bytes) -> bool:
    """Whether a line is empty or the beginning of one: printable, as a line is, and without its end."""
    return not text.endswith(b"}") and text.isascii() and text.decode().isprintable()


def last_lines(path: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The last line of each curve ("train", or the split) of a run that is over. RunError for damaged metrics."""
    text = _read(path)
    if summary.get("metrics_sha256", digest := hashlib.sha256(text).hexdigest()) != digest:
        raise RunError(
            f"{path} is damaged: its content does not fit the digest in {path.parent}/summary.json"
        )
    last: dict[str, dict[str, Any]] = {}
    *lines, rest = text.split(b"\n")
    if rest:
        raise RunError(f"{path} is damaged: its last line is cut off")
    for number, one in enumerate(lines, 1):
        place = f"{path} line {number}"
        line = _parsed(place, one)
        needed = ("kind", "step", "loss", "accuracy", *(("split",) if line.get("kind") == "eval" else ()))
        _expect(place, first_wrong(line, METRIC, needed))
        last[line.get("split", line["kind"])] = line
    return last


def _read(path: Path) -> bytes:
    is_there(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path} does not exist, expected one of a run that is over") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _parsed(place: str, text: bytes) -> dict[str, Any]:
    try:
        return parsed(text)
    except ValueError as error:
        raise RunError(f"{place} is damaged: {error}") from None


def parsed(text: bytes) -> dict[str, Any]:
    """The JSON object of a line, NaN and infinities among its values. ValueError, which names no line, for anything
    else."""
    try:
        line = json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(line, dict):
        raise ValueError(f"got {type(line).__name__}, expected a JSON object")
    return line


def _expect(place: object, fault: str | None) -> None:
    if fault is not None:
        raise RunError(f"{place} is damaged: {fault}")
