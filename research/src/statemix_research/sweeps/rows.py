"""What the cells of a plan gave, as flat rows from a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemix_research.sweeps.fields import CURVES, SUMMARY
from statemix_research.sweeps.grid import Cell
from statemix_research.sweeps.plan import Plan
from statemix_research.sweeps.store import DAMAGED, FAILED, MISSING, Store, failure_of

Row = dict[str, Any]


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
    for result in found.probed.values():
        row |= result
    return row


def mean_of(accuracies: Mapping[str, float]) -> float | None:
    """The mean over test lengths, None without any."""
    return sum(accuracies.values()) / len(accuracies) if accuracies else None
