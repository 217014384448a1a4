"""What an experiment is: presets of grids, and how the rows that they give become tables, figures and comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from statemix_research.sweeps.grid import Cell, Expansion, Refusal, describe
from statemix_research.sweeps.models import MODELS
from statemix_research.sweeps.problems import PROBLEMS

SHOWN = 5
"""Refused cells that an error lists; the others are counted."""


class Grid(Protocol):
    """A `Sweep`, or anything else that expands into cells."""

    def expand(self, overrides: Iterable[str] = (), *, to_run: bool = True) -> Expansion:
        """Every cell, with "key=value" settings over all of them; all are checked if they are `to_run`."""
        ...


@dataclass(frozen=True)
class TableView:
    """A table: a line for each value of `rows`, a column for each of `column`; in a cell mean ± deviation, n.

    over: labels chosen among on validation data in every cell. where: the labels of the runs that count.
    comparison: what is equal among the lines, said above the table. mean: a last column averages the others.
    lengths: the columns are test lengths instead.
    """

    title: str
    rows: tuple[str, ...] = ("model",)
    column: str = "task"
    value: str = "accuracy"
    where: Mapping[str, Any] = field(default_factory=dict)
    over: tuple[str, ...] = ("lr",)
    comparison: str = ""
    mean: bool = False
    lengths: bool = False
    time_of: Mapping[str, Any] = field(default_factory=dict)
    """Labels of runs whose time per step no line may exceed by more than a tenth; `over` then chooses among sizes."""


@dataclass(frozen=True)
class FigureView:
    """A figure: a panel for each value of `panel`, a line for each of `series`; every run is a faint point.

    kind: "lines" (y against x), "spectra" (eigenvalues in the complex plane) or "ranking" (the mean of y over the
    values of `across`, in one panel, beside `published` means and deviations). The other fields as in a table.
    """

    name: str
    title: str
    x: str = ""
    y: str = "accuracy"
    series: tuple[str, ...] = ("model",)
    panel: str = "task"
    where: Mapping[str, Any] = field(default_factory=dict)
    over: tuple[str, ...] = ("lr",)
    kind: str = "lines"
    log_x: bool = False
    log_y: bool = False
    across: str = ""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Claim(NamedTuple):
    """Something the paper says: of the runs `where`, a value near, above or below a number or that of other runs."""

    text: str
    where: Mapping[str, Any]
    relation: str = "near"
    number: float | None = None
    against: Mapping[str, Any] | None = None
    value: str = "accuracy"
    over: tuple[str, ...] = ("lr",)
    across: str = ""
    """A label over whose values the chosen means are averaged."""
    source: str = "arXiv 2602.12021"


@dataclass(frozen=True)
class Experiment:
    """A table or figure of evidence."""

    name: str
    title: str
    what: str
    presets: Mapping[str, Sequence[Grid]]
    tables: tuple[TableView, ...] = ()
    figures: tuple[FigureView, ...] = ()
    claims: tuple[Claim, ...] = ()
    alone: bool = False
    """Its jobs are timings: one at a time."""


class Plan(NamedTuple):
    """An experiment at a preset: its cells, and those that cannot be built here, with the reasons."""

    experiment: Experiment
    preset: str
    settings: tuple[str, ...]
    cells: list[Cell]
    left_out: list[Refusal]

    @property
    def reasons(self) -> dict[str, str]:
        """Why cells were left out, by model."""
        return reasons((str(one.labels["model"]), one.reason) for one in self.left_out)


def make_plan(
    experiment: Experiment, preset: str, settings: Iterable[str] = (), *, to_run: bool = True
) -> Plan:
    """Expand and check a whole grid; who only looks for its runs (not `to_run`) has one cell of each problem checked.

    ValueError for an unknown preset, and for an impossible grid with the reason for each cell.
    """
    if preset not in experiment.presets:
        known = ", ".join(map(repr, experiment.presets))
        raise ValueError(f"preset: got {preset!r}, expected one of {known}")
    settings = tuple(settings)
    expansions = [grid.expand(settings, to_run=to_run) for grid in experiment.presets[preset]]
    refused = [refusal for expansion in expansions for refusal in expansion.refused]
    cells = [cell for expansion in expansions for cell in expansion.cells]
    left_out = [refusal for expansion in expansions for refusal in expansion.left_out]
    if refused:
        total = len(cells) + len(refused) + len(left_out)
        raise ValueError(_refusals(experiment.name, refused, total))
    return Plan(experiment, preset, settings, cells, left_out)


def only(plan: Plan, choices: Iterable[str]) -> Plan:
    """The part of a plan whose cells have the labels "label=value,value"; every further choice narrows it.

    A task or model goes by its name in sweeps ("s3", "bdlru-4") or by its label ("S3"). ValueError for a label or a
    value that the plan does not have, left out or not, and for choices that leave nothing.
    """
    cells, left_out = plan.cells, plan.left_out
    every = [*(cell.labels for cell in cells), *(one.labels for one in left_out)]
    for choice in choices:
        key, _, text = choice.partition("=")
        known = list(dict.fromkeys(labels[key] for labels in every if key in labels))
        if known in ([], [None]):
            names = ", ".join(dict.fromkeys(label for labels in every for label in labels))
            raise ValueError(f"only: got {choice!r}, expected label=values, the label one of {names}")
        values = [text] if text in known else text.split(",")  # a label may have a comma
        wanted = [_meant(key, value.strip(), known) for value in values]
        cells = [cell for cell in cells if cell.labels.get(key) in wanted]
        left_out = [one for one in left_out if key not in one.labels or one.labels[key] in wanted]
    if not cells:
        why = "".join(
            f"; {model}: {reason}" for model, reason in plan._replace(left_out=left_out).reasons.items()
        )
        raise ValueError(f"only: no cell of {plan.experiment.name} has all of {', '.join(choices)}{why}")
    return plan._replace(cells=cells, left_out=left_out)


NAMED: Mapping[str, Mapping[str, Any]] = {"task": PROBLEMS, "model": MODELS}
"""Labels whose values have names of their own."""


def _meant(key: str, text: str, known: Sequence[Any]) -> Any:
    """The value of a label that the text stands for."""
    named = NAMED.get(key, {})
    for value in known:
        number = value is not None and not isinstance(value, str) and _number(text) == value
        if number or str(value) == text or (text in named and named[text].label == value):
            return value
    names = {spec.label: name for name, spec in named.items()}
    shown = ", ".join(str(names.get(value, value)) for value in known)
    raise ValueError(f"only: got {key}={text!r}, expected one of {shown}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _refusals(name: str, refused: list[Refusal], total: int) -> str:
    cells: dict[str, dict[str, None]] = {}  # of each reason, in order and once
    for one in refused:
        labels = {k: v for k, v in one.labels.items() if k not in ("lr", "seed")}
        cells.setdefault(one.reason, {})[describe(labels)] = None
    told = _some([f"{reason} [{_some(list(of))}]" for reason, of in cells.items()])
    return f"{name}: {len(refused)} of {total} cells cannot run, nothing was started: {told}"


def _some(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return "; ".join(texts[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def reasons(left_out: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Why cells were left out, of (model, reason) of each: all reasons of each model, in order."""
    found: dict[str, dict[str, None]] = {}
    for model, reason in left_out:
        found.setdefault(model, {})[reason] = None
    return {model: "; ".join(of) for model, of in found.items()}
