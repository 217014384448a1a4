"""Plans: an experiment at a preset, every cell of it expanded and checked, and parts of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from statemix_research.sweeps.grid import FREE, Cell, InvalidCell, describe
from statemix_research.sweeps.models import MODEL_SPECS
from statemix_research.sweeps.store import Job
from statemix_research.sweeps.tasks import TASK_SPECS

SHOWN = 5
"""Invalid cells that an error lists; the others are counted."""

NAMED: Mapping[str, Mapping[str, Any]] = {"task": TASK_SPECS, "model": MODEL_SPECS}
"""Labels whose values have names of their own."""


class Grid(Protocol):
    """A `Sweep`, or anything else that expands into cells."""

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Iterator[Cell | InvalidCell]:
        """Every cell, with "key=value" settings for all of them; all are checked if they are `to_run`."""


class Presets(Protocol):
    """What is planned: a name, and grids by the name of a preset ("full", "small")."""

    @property
    def name(self) -> str:
        """How commands call it."""

    @property
    def presets(self) -> Mapping[str, Sequence[Grid]]:
        """Its grids."""


class Plan(NamedTuple):
    """An experiment at a preset: its cells, and those that cannot be built here, with the reasons."""

    experiment: str
    preset: str
    settings: tuple[str, ...]
    cells: list[Cell]
    skipped: list[InvalidCell]

    @property
    def reasons(self) -> dict[str, str]:
        """Why cells are skipped, by model."""
        return reasons((str(one.labels["model"]), one.reason) for one in self.skipped)


def make_plan(experiment: Presets, preset: str, settings: Iterable[str] = (), *, to_run: bool = True) -> Plan:
    """Expand and check a whole grid; without `to_run`, to look for its runs, one cell of each task is checked.

    Errors: ValueError for an unknown preset, and for invalid cells with the reason for each.
    """
    if preset not in experiment.presets:
        known = ", ".join(map(repr, experiment.presets))
        raise ValueError(f"preset: got {preset!r}, expected one of {known}")
    settings = tuple(settings)
    cells: dict[tuple[Any, ...], Cell] = {}
    skipped, invalid = list[InvalidCell](), list[InvalidCell]()
    for one in (one for grid in experiment.presets[preset] for one in grid.expand(settings, to_run=to_run)):
        if isinstance(one, Cell):
            cells.setdefault((one.job.key, *one.labels.values()), one)
        else:
            (skipped if one.is_skipped else invalid).append(one)
    if invalid:
        points = ((one.reason, describe({**one.labels, **dict.fromkeys(FREE)})) for one in invalid)
        told = _some([f"{reason} [{_some(of)}]" for reason, of in _grouped(points).items()])
        of_all = f"{len(invalid)} of {len(cells) + len(invalid) + len(skipped)} cells"
        raise ValueError(f"{experiment.name}: {of_all} cannot run, nothing was started: {told}")
    return Plan(experiment.name, preset, settings, list(cells.values()), skipped)


def jobs_of(cells: Iterable[Cell]) -> list[Job]:
    """The jobs of cells, each once, with all probes that any cell wants."""
    jobs: dict[str, Job] = {}
    for cell in cells:
        job = cell.job
        before = jobs.get(job.key, job).probes
        jobs[job.key] = job._replace(probes=tuple(dict.fromkeys((*before, *job.probes))))
    return list(jobs.values())


def only(plan: Plan, choices: Iterable[str]) -> Plan:
    """The part of a plan whose cells have the labels "label=value,value"; every further choice narrows it.

    A task or model goes by its name in sweeps ("s3", "bdlru-4") or by its label ("S3"). Errors: ValueError for a label
    or a value that the plan does not have, skipped or not, and for choices that leave nothing.
    """
    choices = list(choices)
    cells, skipped = plan.cells, plan.skipped
    every = [*(cell.labels for cell in cells), *(one.labels for one in skipped)]
    for choice in choices:
        key, _, text = choice.partition("=")
        known = list(dict.fromkeys(labels[key] for labels in every if key in labels))
        if known in ([], [None]):
            names = ", ".join(dict.fromkeys(label for labels in every for label in labels))
            raise ValueError(f"only: got {choice!r}, expected label=values, the label one of {names}")
        values = [text] if text in known else text.split(",")  # a label may have a comma
        wanted = [_meant(key, value.strip(), known) for value in values]
        cells = [cell for cell in cells if cell.labels.get(key) in wanted]
        skipped = [one for one in skipped if key not in one.labels or one.labels[key] in wanted]
    part = plan._replace(cells=cells, skipped=skipped)
    if not cells:
        why = "".join(f"; {model}: {reason}" for model, reason in part.reasons.items())
        raise ValueError(f"only: no cell of {plan.experiment} has all of {', '.join(choices)}{why}")
    return part


def _meant(key: str, text: str, known: Sequence[Any]) -> Any:
    """The value of a label that the text stands for."""
    named = NAMED.get(key, {})
    wanted = {text, named[text].label if text in named else text}
    with contextlib.suppress(ValueError):
        wanted.add(float(text))
    for value in known:
        if str(value) in wanted or (value in wanted and not isinstance(value, str)):
            return value
    names = {spec.label: name for name, spec in named.items()}
    shown = ", ".join(str(names.get(value, value)) for value in known)
    raise ValueError(f"only: got {key}={text!r}, expected one of {shown}")


def _some(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return "; ".join(texts[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def reasons(skipped: Iterable[tuple[str, str]]) -> dict[str, str]:
    """All reasons for which each model is skipped, from pairs (model, reason)."""
    return {model: "; ".join(of) for model, of in _grouped(skipped).items()}


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The second texts of each first one, in order and once."""
    found: dict[str, dict[str, None]] = {}
    for first, second in pairs:
        found.setdefault(first, {})[second] = None
    return {first: list(of) for first, of in found.items()}
