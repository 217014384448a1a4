"""What the cells of a plan gave, as flat rows: from a store, or from a file that was exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statemix.experiments.experiment import Plan
from statemix.experiments.grid import Cell
from statemix.experiments.store import FAILED, MISSING, Store
from statemix.training.files import replace_file

Row = dict[str, Any]

FORM = "statemix-experiment-1"

SUMMARY = (
    "step", "parameters", "mixer_parameters", "state_size", "flops_per_step", "best_accuracy", "seconds", "device",
    "torch", "tokens_per_s", "ms",
)  # fmt: skip
"""What a row takes over from a summary."""

ESSENTIAL = ("task", "mixer", "model", "training")
"""What an exported row keeps of a configuration."""


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
    train, validation = last.get("train", {}), last.get("validation", {})
    return {
        "train_loss": train.get("loss"), "train_accuracy": train.get("accuracy"),
        "validation": validation.get("accuracy"), "validation_loss": validation.get("loss"),
    }  # fmt: skip


def export(plan: Plan, rows: list[Row], out: Path) -> int:
    """Write every run that came to an end (a measurement may still be missing) or failed as a line of JSON; returns how
    many. One head line comes first.

    RunError when the file cannot be written.
    """
    contents = {cell.job.key: cell.job.content for cell in plan.cells}
    left_out = dict.fromkeys((one.labels["model"], one.reason) for one in plan.left_out)
    head = {
        "form": FORM, "experiment": plan.experiment.name, "preset": plan.preset, "settings": list(plan.settings),
        "cells": len(rows), "left_out": list(left_out),
    }  # fmt: skip
    kept = [row for row in rows if "ended" in row or row["status"] == FAILED]
    lines = [head] + [
        {
            **row,
            "config": {key: contents[row["key"]][key] for key in ESSENTIAL if key in contents[row["key"]]},
        }
        for row in kept
    ]
    text = "".join(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines)
    replace_file(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return len(kept)


def read_export(path: Path, experiment: str) -> tuple[Row, list[Row]]:
    """The head line and the rows of an exported file. ValueError for one that is none, or of another experiment."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"store: {path} is not a file of exported runs: {error}") from None
    head = lines[0] if lines and isinstance(lines[0], dict) else {}
    if head.get("form") != FORM:
        raise ValueError(f"store: {path} has the form {head.get('form')!r}, expected {FORM!r}")
    if head["experiment"] != experiment:
        raise ValueError(f"store: {path} holds {head['experiment']!r}, expected {experiment!r}")
    return head, lines[1:]
