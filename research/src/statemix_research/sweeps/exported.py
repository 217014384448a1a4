"""Runs of an experiment in one compact file (JSON lines): written, and read as rows that are checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statemix.training.files import replace_file
from statemix_research.sweeps import fields
from statemix_research.sweeps.fields import COUNT, LABEL, RESULTS, TEXT, Field, first_wrong, wrong
from statemix_research.sweeps.plan import Plan
from statemix_research.sweeps.reading import parsed
from statemix_research.sweeps.rows import Row, mean_of
from statemix_research.sweeps.store import DIVERGED, FAILED, FINISHED

FORM = "statemix-experiment-2"

FORMER = {"statemix-experiment-1": {"basis": "matched_on", "left_out": "skipped"}}
"""Earlier forms that are read, and what their keys are called now."""

ESSENTIAL = ("task", "mixer", "model", "training")
"""What an exported row keeps of a configuration."""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(TEXT.fits, value))


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and all(_is_texts(one) and len(one) == 2 for one in value)


HEAD: dict[str, Field] = {
    "experiment": TEXT, "preset": TEXT, "settings": Field("a list of texts", _is_texts), "cells": COUNT,
    "skipped": Field("a list of [model, reason]", _is_pairs),
}  # fmt: skip
"""What stands in the first line, beside the form."""

ROW: dict[str, Field] = {
    "key": fields.matching("16 hex digits", "[0-9a-f]{16}"), "config": fields.OBJECT, **RESULTS,
}  # fmt: skip
"""What stands in every other line, beside labels."""

ENDED = ("step", "device", "torch")
TRAINED = (
    "parameters", "mixer_parameters", "state_size", "best_accuracy", "seconds", "accuracies", "accuracy",
    "mean_accuracy", "train_loss", "train_accuracy", "validation", "validation_loss",
)  # fmt: skip
TIMED = ("tokens_per_s", "ms")
"""What the row of a run that came to its end has: every one, one of a training, one of a timing."""


def export(plan: Plan, rows: list[Row], out: Path) -> int:
    """Write every run that came to an end (a probe may still be missing) or failed as a line of JSON; returns how many.

    One head line comes first. Damaged runs are left out. Errors: RunError when the file cannot be written.
    """
    contents = {cell.job.key: cell.job.content for cell in plan.cells}
    head = {
        "form": FORM, "experiment": plan.experiment, "preset": plan.preset, "settings": list(plan.settings),
        "cells": len(rows), "skipped": list(dict.fromkeys((one.labels["model"], one.reason) for one in plan.skipped)),
    }  # fmt: skip
    kept = [row for row in rows if "ended" in row or row["status"] == FAILED]
    lines = [head, *({**row, "config": essential(contents[row["key"]])} for row in kept)]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    replace_file(out, lambda temporary: temporary.write_bytes(text.encode()))
    return len(kept)


def essential(content: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration that a row keeps."""
    return {key: content[key] for key in ESSENTIAL if key in content}


def read_export(path: Path, experiment: str | None = None, argument: str = "store") -> tuple[Row, list[Row]]:
    """The head line and the rows of an exported file, every value checked; keys of earlier forms are renamed.

    Errors: ValueError naming the `argument` that the file was given as, the line and the key, for a file that is none,
    that is damaged, or of another experiment.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{argument}: {path} is not a file of exported runs: {reason}") from None
    lines = content.removesuffix(b"\n").split(b"\n")
    head = _parsed(lines[0], f"{argument}: {path} is not a file of exported runs: line 1")
    form = head.get("form")
    if form != FORM and not (isinstance(form, str) and form in FORMER):
        raise ValueError(f"{argument}: {path} has the form {form!r}, expected {FORM!r}")
    names = FORMER.get(form, {})
    head = _renamed(head, names)
    if names and _is_pairs(head.get("skipped")):
        head["skipped"] = [[model, _reworded(reason)] for model, reason in head["skipped"]]
    place = f"{argument}: {path} is damaged in line"
    _expect(f"{place} 1", first_wrong(head, HEAD, HEAD))
    if experiment not in (None, head["experiment"]):
        raise ValueError(f"{argument}: {path} holds {head['experiment']!r}, expected {experiment!r}")
    rows = [_renamed(_parsed(line, f"{place} {number}"), names) for number, line in enumerate(lines[1:], 2)]
    for number, row in enumerate(rows, 2):
        _expect(f"{place} {number}", _fault(row))
    _check_repeated(rows, place)
    return head, rows


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(key, key): value for key, value in row.items()}


def _reworded(reason: str) -> str:
    """The reason for a skipped size, as it is told now."""
    reason = re.sub(r"(\d+) were asked", r"expected about \1", reason)
    return re.sub(r"one of (\d+) numbers was asked", r"expected a state of \1 numbers", reason)


def _parsed(line: bytes, place: str) -> Row:
    try:
        return parsed(line)
    except ValueError as error:
        raise ValueError(f"{place}, {error}") from None


def _expect(place: str, fault: str | None) -> None:
    if fault is not None:
        raise ValueError(f"{place}, {fault}")


def _fault(row: Row) -> str | None:
    """What is wrong with a row, taken by itself."""
    needed = ["key", "status"]
    if row.get("status") in (FINISHED, DIVERGED):
        needed.append("ended")
    if "ended" in row:
        needed += [*ENDED, *(TRAINED if "task" in row else TIMED)]
    return (
        first_wrong(row, ROW, needed)
        or next((text for name in labels_of(row) if (text := wrong(name, row[name], LABEL))), None)
        or (_inconsistency(row) if "ended" in row else None)
    )


def labels_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a row that say which cell it is of."""
    return {name: value for name, value in row.items() if name not in ROW}


def _inconsistency(row: Row) -> str | None:
    """What does not fit the rest of the row: the status, and what follows from the accuracies."""
    follows: dict[str, Any] = {"status": row["status"]}
    if (row["ended"] == DIVERGED) != (row["status"] == DIVERGED):
        follows["status"] = DIVERGED if row["ended"] == DIVERGED else FINISHED
    if "accuracies" in row:
        follows["accuracy"] = row["accuracies"].get(str(row.get("length")))
        follows["mean_accuracy"] = mean_of(row["accuracies"])
    for name, value in follows.items():
        if row[name] != value:
            return f"{name}: got {row[name]!r}, expected {value!r}, which the rest of the line makes it"
    return None


def _check_repeated(rows: Iterable[Row], place: str) -> None:
    """Every cell has one line; cells that share a run share its results."""
    cells: dict[str, int] = {}
    runs: dict[str, tuple[int, Row]] = {}
    for number, row in enumerate(rows, 2):
        labels = labels_of(row)
        first = cells.setdefault(json.dumps([row["key"], labels], sort_keys=True), number)
        if first != number:
            told = f"key: got {row['key']!r}, expected another cell than that of line {first}"
            raise ValueError(f"{place} {number}, {told}")
        where, known = runs.setdefault(row["key"], (number, row))
        for name in (row.keys() & known.keys()) - labels.keys() - {"status", "error"}:
            if row[name] != known[name]:
                told = f"{name}: got {row[name]!r:.60}, expected {known[name]!r:.60} as in line {where}"
                raise ValueError(f"{place} {number}, {told}, which is of the same run")
