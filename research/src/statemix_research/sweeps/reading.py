"""The files of a run as they are read back: each once, and a RunError that names what is damaged, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemix.training import RunFolder
from statemix.training.files import RunError, read_bytes, read_json, unseal
from statemix_research.sweeps.fields import (
    EVENT,
    METRIC,
    NEEDED,
    PROBED,
    SCORES,
    SUMMARY,
    TEXT,
    check_fields,
    naming,
    one_of,
    parse,
)
from statemix_research.sweeps.probes import PROBES

FACTS = {"ended": ("status", "hardware"), "failed": ("error",)}
"""What a line of a history has, by its event, beside the event and the time."""


def is_there(path: Path) -> bool:
    """Whether there is a file. RunError for a link, which is no file of the run's own."""
    try:
        if path.is_symlink():
            raise RunError(f"{path} is a symbolic link, expected a file of the run's own")
        return path.exists()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. RunError for a file that is missing or damaged, and whatever is no file of the run's own."""
    is_there(path)
    return read_json(path)


def read_summary(folder: RunFolder, kind: str) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do, else None. RunError for a damaged one."""
    if not is_there(folder.summary):
        return None
    summary = folder.finished()
    if summary is not None:
        needed = (*NEEDED[kind], *(("accuracy",) if kind == "train" else ()))
        with _damage(folder.summary):
            check_fields(summary, {**SUMMARY, "accuracy": SCORES}, needed)
    return summary


def read_probe(path: Path, name: str, run: str) -> dict[str, Any] | None:
    """The result of a probe of a run, if there is one. RunError for a damaged file."""
    if not is_there(path):
        return None
    result, gives = read_object(path), PROBES[name].gives
    with _damage(path):
        check_fields(result, {**PROBED, "run": one_of(run)}, gives)
    return {key: result[key] for key in gives}


def read_history(path: Path, run: str) -> list[dict[str, Any]]:
    """The lines of a run's history, less one that was cut off by a kill. RunError for a damaged one."""
    lines, fields = [], {**EVENT, "run": one_of(run)}
    for number, text in enumerate(_read(path).split(b"\n") if is_there(path) else (), 1):
        if _is_cut_off(text):
            continue
        with _damage(f"{path} line {number}"):
            line = unseal(parse(text))
            check_fields(line, fields, ("event", "time", *FACTS.get(str(line.get("event")), ())))
            check_fields(
                line.get("hardware", {}), {"device": TEXT}, ("device",) if "hardware" in line else ()
            )
        lines.append(line)
    return lines


def _is_cut_off(text: bytes) -> bool:
    """Whether a line is empty or the beginning of one: printable, as a line is, and without its end."""
    return not text.endswith(b"}") and text.isascii() and text.decode().isprintable()


def last_lines(path: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The last line of each curve ("train", or the split) of a run that is over. RunError for damaged metrics."""
    text = _read(path)
    *lines, rest = text.split(b"\n")
    with _damage(path):
        if summary.get("metrics_sha256", digest := hashlib.sha256(text).hexdigest()) != digest:
            raise ValueError(f"its content does not fit the digest in {path.parent}/summary.json")
        if rest:
            raise ValueError("its last line is cut off")
    last: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(lines, 1):
        with _damage(f"{path} line {number}"):
            line = parse(one)
            split = ("split",) if line.get("kind") == "eval" else ()
            check_fields(line, METRIC, ("kind", "step", "loss", "accuracy", *split))
        last[line.get("split", line["kind"])] = line
    return last


def _read(path: Path) -> bytes:
    is_there(path)
    try:
        return read_bytes(path)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _damage(place: object) -> Any:
    return naming(f"{place} is damaged: ", RunError)
