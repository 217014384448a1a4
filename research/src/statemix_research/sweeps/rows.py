"""Runs as flat rows: from a store, and in one compact file (JSON lines), written, and read with every value checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemix.training.files import replace_file
from statemix_research.sweeps import fields
from statemix_research.sweeps.grid import Cell
from statemix_research.sweeps.plan import Plan
from statemix_research.sweeps.store import DAMAGED, DIVERGED, FAILED, FINISHED, MISSING, Store, failure_of

Row = dict[str, Any]

FORM = "statemix-experiment-2"

FORMER = {"statemix-experiment-1": {"basis": "matched_on", "left_out": "skipped"}}
"""Earlier forms that are read, and what their keys are called now."""

ESSENTIAL = ("task", "mixer", "model", "training")
"""What an exported row keeps of a configuration."""


ACCURACIES = ("accuracies", "accuracy", "mean_accuracy", *fields.CURVES)
"""What the row of a training that came to its end has besides what is `NEEDED`."""


def rows_of(plan: Plan, store: Store) -> list[Row]:
    """A row for every cell: its labels, the status of its run, and all its numbers.

    A damaged run has no numbers, and its "error" names the file.
    """
    here = store.keys()
    return [
        _row(cell, store) if cell.job.key in here else {**cell.labels, "key": cell.job.key, "status": MISSING}
        for cell in plan.cells
    ]


def _row(cell: Cell, store: Store) -> Row:
    job, found = cell.job, store.read(cell.job, under_way=True)
    row: Row = {**cell.labels, "key": job.key, "status": found.status}
    if found.status == DAMAGED:
        return row | {"error": found.damage.replace(f"{store.path}/", "")}
    if found.status == FAILED:
        error = (failure_of(found.history) or {}).get("error", "")
        row["error"] = error.encode("utf-8", "backslashreplace").decode()  # file names may be no UTF-8
    summary = found.summary
    if summary is None:
        return row
    row |= {key: summary[key] for key in fields.SUMMARY if key in summary}
    row["ended"] = summary["status"]
    if job.kind == "train":
        row["accuracies"] = summary["accuracy"]
        row["accuracy"] = summary["accuracy"].get(str(job.content["task"]["length"]))
        row["mean_accuracy"] = mean_of(summary["accuracy"])
        row |= {
            name: found.curves.get(curve, {}).get(value) for name, (curve, value) in fields.CURVES.items()
        }
    last = next((line for line in reversed(found.history) if line["event"] == "ended"), None)
    if last is not None:
        row |= {"hardware": last["hardware"]["device"], "date": last["time"][:10]}
    for result in found.probed.values():
        row |= result
    return row


def mean_of(accuracies: Mapping[str, float]) -> float | None:
    """The mean over test lengths, None without any."""
    return sum(accuracies.values()) / len(accuracies) if accuracies else None


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
    with fields.naming(f"{argument}: {path} is not a file of exported runs: line 1, "):
        head = fields.parse(lines[0])
    form = head.get("form")
    if form != FORM and not (isinstance(form, str) and form in FORMER):
        raise ValueError(f"{argument}: {path} has the form {form!r}, expected {FORM!r}")
    names = FORMER.get(form, {})
    head = _renamed(head, names)
    if names and fields.SKIPPED.fits(head.get("skipped")):
        head["skipped"] = [[model, _reworded(reason)] for model, reason in head["skipped"]]
    place = f"{argument}: {path} is damaged in line"
    with fields.naming(f"{place} 1, "):
        fields.check_fields(head, fields.HEAD, fields.HEAD)
    if experiment not in (None, head["experiment"]):
        raise ValueError(f"{argument}: {path} holds {head['experiment']!r}, expected {experiment!r}")
    rows, cells, runs = list[Row](), dict[str, int](), dict[str, tuple[int, Row]]()
    for number, line in enumerate(lines[1:], 2):
        with fields.naming(f"{place} {number}, "):
            row = _renamed(fields.parse(line), names)
            _check_row(row)
            _check_repeated(number, row, cells, runs)
        rows.append(row)
    return head, rows


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    return {names.get(key, key): value for key, value in row.items()}


def _reworded(reason: str) -> str:
    """The reason for a skipped size, as it is told now."""
    reason = re.sub(r"(\d+) were asked", r"expected about \1", reason)
    return re.sub(r"one of (\d+) numbers was asked", r"expected a state of \1 numbers", reason)


def labels_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a row that say which cell it is of."""
    return {name: value for name, value in row.items() if name not in fields.ROW}


def _check_row(row: Row) -> None:
    """ValueError for what is wrong with a row, taken by itself."""
    needed = ["key", "status"]
    if row.get("status") in (FINISHED, DIVERGED):
        needed.append("ended")
    if "ended" in row:
        needed += (*fields.NEEDED["train"], *ACCURACIES) if "task" in row else fields.NEEDED["throughput"]
    fields.check_fields(row, fields.ROW, needed)
    fields.check_fields(row, dict.fromkeys(labels_of(row), fields.LABEL))
    if "ended" not in row:
        return
    follows = {"status": row["status"]}
    if (row["ended"] == DIVERGED) != (row["status"] == DIVERGED):
        follows["status"] = DIVERGED if row["ended"] == DIVERGED else FINISHED
    if "accuracies" in row:
        follows["accuracy"] = row["accuracies"].get(str(row.get("length")))
        follows["mean_accuracy"] = mean_of(row["accuracies"])
    for name, value in follows.items():
        if row[name] != value:
            raise ValueError(
                f"{name}: got {row[name]!r}, expected {value!r}, which the rest of the line makes it"
            )


def _check_repeated(number: int, row: Row, cells: dict[str, int], runs: dict[str, tuple[int, Row]]) -> None:
    """ValueError unless every cell has one line, and cells that share a run share its results."""
    labels = labels_of(row)
    first = cells.setdefault(json.dumps([row["key"], labels], sort_keys=True), number)
    if first != number:
        raise ValueError(f"key: got {row['key']!r}, expected another cell than that of line {first}")
    where, known = runs.setdefault(row["key"], (number, row))
    for name in (row.keys() & known.keys()) - labels.keys() - {"status", "error"}:
        if row[name] != known[name]:
            told = f"{name}: got {row[name]!r:.60}, expected {known[name]!r:.60} as in line {where}"
            raise ValueError(f"{told}, which is of the same run")
