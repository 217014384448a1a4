"""What the cells of a plan gave, as flat rows from a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemix.training.files import RunError
from statemix_research.sweeps.fields import SUMMARY
from statemix_research.sweeps.grid import Cell
from statemix_research.sweeps.plan import Plan
from statemix_research.sweeps.store import (
    DAMAGED,
    FAILED,
    MISSING,
    UNFINISHED,
    Found,
    Store,
    check_config,
    failure_of,
)

Row = dict[str, Any]

CURVES = {
    "train_loss": ("train", "loss"), "train_accuracy": ("train", "accuracy"),
    "validation": ("validation", "accuracy"), "validation_loss": ("validation", "loss"),
}  # fmt: skip
"""What a row takes from the last lines of the curves: of which curve, which number."""


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
    job, found = cell.job, store.read(cell.job)
    if found.status == UNFINISHED and found.summary is None:
        found = _with_config_checked(found, cell, store)
    row: Row = {**cell.labels, "key": job.key, "status": found.status}
    if found.status == DAMAGED:
        return row | {"error": found.damage.replace(f"{store.path}/", "")}
    if found.status == FAILED:
        row["error"] = _encodable((failure_of(found.history) or {}).get("error", ""))
    summary = found.summary
    if summary is None:
        return row
    row |= {key: summary[key] for key in SUMMARY if key in summary}
    row["ended"] = summary["status"]
    if job.kind == "train":
        row["accuracies"] = summary["accuracy"]
        row["accuracy"] = summary["accuracy"].get(str(job.content["task"]["length"]))
        row["mean_accuracy"] = mean_of(summary["accuracy"])
        row |= {name: found.curves.get(curve, {}).get(value) for name, (curve, value) in CURVES.items()}
    last = next((line for line in reversed(found.history) if line["event"] == "ended"), None)
    if last is not None:
        row |= {"hardware": last["hardware"]["device"], "date": last["time"][:10]}
    for name in job.probes:
        row |= found.probed.get(name, {})
    return row


def mean_of(accuracies: Mapping[str, float]) -> float | None:
    """The mean over test lengths, None without any."""
    return sum(accuracies.values()) / len(accuracies) if accuracies else None


def _encodable(text: str) -> str:
    """What UTF-8 can hold: a byte of a file name that was none becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _with_config_checked(found: Found, cell: Cell, store: Store) -> Found:
    """What is under way, damaged if its configuration is; a sweep leaves that to a worker to tell."""
    path = store.folder(cell.job.key) / "config.json"
    try:
        if path.exists():
            check_config(path, cell.job)
    except RunError as error:
        return found._replace(status=DAMAGED, damage=str(error))
    return found
