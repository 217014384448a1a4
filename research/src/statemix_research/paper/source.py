"""An experiment's rows, from a store or an exported file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from statemix_research.paper.experiment import Experiment
from statemix_research.sweeps import Plan, Store, make_plan, read_export, reasons, rows_of
from statemix_research.sweeps.store import MISSING


class Results(NamedTuple):
    """Everything that a page about an experiment needs."""

    experiment: Experiment
    preset: str
    settings: tuple[str, ...]
    rows: list[dict[str, Any]]
    skipped: dict[str, str]
    source: Path


def plan_in_store(
    experiment: Experiment, store: Store, preset: str | None, settings: Iterable[str] = ()
) -> Plan:
    """The plan of a preset; without one, of the full preset if the store has any of its runs, else of the small one.

    Of an empty store nothing is planned. Errors: ValueError as `make_plan`.
    """
    settings, here = tuple(settings), store.keys()
    if not here and not settings:
        experiment = replace(experiment, presets=dict.fromkeys(experiment.presets, ()))
    names = experiment.presets if preset is None else (preset,)
    plans = []
    for name in names:
        plans.append(make_plan(experiment, name, settings, to_run=False))
        if any(cell.job.key in here for cell in plans[-1].cells):
            return plans[-1]
    return plans[0]


def read_results(
    experiment: Experiment, source: Path, preset: str | None = None, settings: Iterable[str] = ()
) -> Results:
    """The rows of an experiment from a store or, if `source` is a file, from what `export` wrote.

    Errors: FileNotFoundError without a source, ValueError for a preset or a file that is none, or without any run.
    """
    if source.is_file():
        head, rows = read_export(source, experiment.name)
        if preset not in (None, head["preset"]):
            raise ValueError(f"preset: got {preset!r}, {source} holds {head['preset']!r}")
        skipped = reasons(head["skipped"])
        return Results(experiment, head["preset"], tuple(head["settings"]), rows, skipped, source)
    if not source.exists():
        raise FileNotFoundError(2, "no such store of runs", str(source))
    store = Store(source)
    plan = plan_in_store(experiment, store, preset, settings)
    rows = rows_of(plan, store)
    if all(row["status"] == MISSING for row in rows):
        raise ValueError(f"store: {source} has no run of {experiment.name} ({plan.preset})")
    return Results(experiment, plan.preset, plan.settings, rows, plan.reasons, source)
