"""What the cells of a plan gave, as flat rows from a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemix.experiments.experiment import Plan
from statemix.experiments.grid import Cell
from statemix.experiments.store import FAILED, MISSING, Store

Row = dict[str, Any]

SUMMARY = (
    "step", "parameters", "mixer_parameters", "state_size", "flops_per_step", "best_accuracy", "seconds", "device",
    "torch", "capture", "tokens_per_s", "ms",
)  # fmt: skip
"""What a row takes over from a summary."""

CURVES = {
    "train_loss": ("train", "loss"), "train_accuracy": ("train", "accuracy"),
    "validation": ("validation", "accuracy"), "validation_loss": ("validation", "loss"),
}  # fmt: skip
"""What a row takes over from the last lines of the curves: of which curve, which number."""


def rows_of(plan: Plan, store: Store) -> list[Row]:
    """A row for every cell: its labels, the status of its run, and all its numbers."""
    return [_row(cell, store) for cell in plan.cells]


def _row(cell: Cell, store: Store) -> Row:
    job = cell.job
    row: Row = {**cell.labels, "key": job.key, "status": store.status(job)}
    if row["status"] == FAILED:
        row["error"] = (store.failure(job.key) or {}).get("error")
    summary = store.summary(job.key) if row["status"] != MISSING else None
    if summary is None:
        return row
    row |= {key: summary[key] for key in SUMMARY if key in summary}
    row["ended"] = summary["status"]
    if job.kind == "train":
        row["accuracies"] = summary["accuracy"]
        row["accuracy"] = summary["accuracy"].get(str(job.content["task"]["length"]))
        tested = list(summary["accuracy"].values())
        row["mean_accuracy"] = sum(tested) / len(tested) if tested else None
        row |= _last_lines(store.folder(job.key) / "metrics.jsonl")
    last = next((line for line in reversed(store.attempts(job.key)) if line["event"] == "ended"), None)
    if last is not None:
        row |= {"hardware": last["hardware"]["device"], "date": last["time"][:10]}
    for name in job.measures:
        row |= store.measured(job.key, name) or {}
    return row


def _last_lines(path: Path) -> Row:
    """The last numbers of the training and validation curves."""
    last: dict[str, Mapping[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        last[line.get("split", line["kind"])] = line
    return {name: last.get(curve, {}).get(value) for name, (curve, value) in CURVES.items()}
