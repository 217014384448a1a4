"""Runs of an experiment in one compact file (JSON lines): written, read as rows, and imported into a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from statemix.experiments.catalogue import get_experiment
from statemix.experiments.experiment import Plan, make_plan
from statemix.experiments.measures import MEASURES
from statemix.experiments.rows import CURVES, SUMMARY, Row
from statemix.experiments.store import FAILED, Job, Store
from statemix.training.files import replace_file, write_json

FORM = "statemix-experiment-1"

ESSENTIAL = ("task", "mixer", "model", "training")
"""What an exported row keeps of a configuration."""


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


def read_export(path: Path, experiment: str | None = None, argument: str = "store") -> tuple[Row, list[Row]]:
    """The head line and the rows of an exported file.

    ValueError, which names the `argument` that the file was given as, for one that is none, or of another experiment.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{argument}: {path} is not a file of exported runs: {error}") from None
    head = lines[0] if lines and isinstance(lines[0], dict) else {}
    if head.get("form") != FORM:
        raise ValueError(f"{argument}: {path} has the form {head.get('form')!r}, expected {FORM!r}")
    damaged = [n for n, line in enumerate(lines, 1) if not _whole(n, line)]
    if damaged:
        raise ValueError(f"{argument}: {path} is damaged in line {damaged[0]}, expected what `export` writes")
    if experiment not in (None, head["experiment"]):
        raise ValueError(f"{argument}: {path} holds {head['experiment']!r}, expected {experiment!r}")
    return head, lines[1:]


def _whole(number: int, line: Any) -> bool:
    """Whether a line of a file is a head, the first, or a run."""
    needed = {"experiment", "preset", "settings"} if number == 1 else {"key", "status"}
    return isinstance(line, dict) and needed <= line.keys()


class Imported(NamedTuple):
    """What came of the rows of a file: imported, there already, left out."""

    new: int
    known: int
    left_out: int


def import_runs(path: Path, store: Store) -> Imported:
    """Put the runs of an exported file into a store, without weights and curves: they count as done, and what is
    exported next holds them too. One is trained again if something is to be measured on its weights that was not. Of
    runs that are there only what was measured is added, on the weights of runs that were trained here nothing: they
    are others. Cut off, the same import goes on.

    A run is left out that failed, or that its experiment does not have here: it was changed since, or times another
    machine. Errors: ValueError as `read_export` and `make_plan`; RunError when the store cannot be written.
    """
    head, rows = read_export(path, argument="file")
    plan = make_plan(get_experiment(head["experiment"]), head["preset"], head["settings"])
    jobs = {cell.job.key: cell.job for cell in plan.cells}
    ended = [row for row in rows if "ended" in row and row["key"] in jobs]
    here = {row["key"] for row in ended if _begun(store, row["key"])}
    new = [row for row in ended if row["key"] not in here and store.summary(row["key"]) is None]
    for row in new:
        _lay(jobs[row["key"]], row, store)
    for row in ended:
        _lay_measurements(row, store, row["key"] in here)
    return Imported(len(new), len(ended) - len(new), len(rows) - len(ended))


def _begun(store: Store, key: str) -> bool:
    """Whether a run was begun in this store, and is not what was imported."""
    return any(line["event"] in ("started", "reopened") for line in store.attempts(key))


def _lay_measurements(row: Row, store: Store, begun: bool) -> None:
    """What was measured on a run, as far as the store does not have it and it holds for the weights there."""
    for name, measure in MEASURES.items():
        path = store.measure_path(row["key"], name)
        if (
            all(key in row for key in measure.gives)
            and not path.exists()
            and not (begun and measure.on_weights)
        ):
            write_json(path, {key: row[key] for key in measure.gives})


def _lay(job: Job, row: Row, store: Store) -> None:
    """The files of a run as `rows_of` reads them; the summary last, by which a run is known to be whole."""
    folder = store.folder(job.key)
    write_json(folder / "config.json", job.content)
    if "hardware" in row and not store.attempts(job.key):
        place = {"device": row["hardware"]}
        store.note(job.key, "ended", status=row["ended"], time=row["date"], hardware=place, imported=True)
    summary = {key: row[key] for key in SUMMARY if key in row} | {"status": row["ended"]}
    if job.kind == "train":
        summary["accuracy"] = row["accuracies"]
        lines = "".join(json.dumps(line) + "\n" for line in _lines(row))
        replace_file(
            folder / "metrics.jsonl", lambda temporary: temporary.write_text(lines, encoding="utf-8")
        )
    write_json(folder / "summary.json", summary)


def _lines(row: Row) -> Iterator[Row]:
    """The last line of each curve."""
    for curve, kind in (
        ("train", {"kind": "train"}),
        ("validation", {"kind": "eval", "split": "validation"}),
    ):
        values = {value: row[name] for name, (where, value) in CURVES.items() if where == curve}
        yield {**kind, "step": row["step"], **values}
