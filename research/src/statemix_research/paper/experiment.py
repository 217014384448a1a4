"""What an experiment is: grids of runs, the tables and figures that are made of them, and what the paper claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statemix_research.sweeps.plan import Grid

Where = Mapping[str, Any]
"""Labels and their values; a list or tuple of values admits each of them."""

ANY_SIZE = ("matched_on", "size", "lr")
"""Size and learning rate are chosen on validation data."""


@dataclass(frozen=True)
class Table:
    """A table: a line for each value of `rows`, a column for each of `columns`; a cell summarises the seeds.

    Attributes:
        title: Heading; says what is equal among the lines.
        rows: Labels that tell the lines apart.
        columns: Labels that tell the columns apart; ("test length",) has a column for each test length.
        value: The number in the cells.
        where: The runs that count.
        over: Labels whose value is chosen on validation data, in every cell.
        mean: Add a column with the mean over the others.
        losses: A file of language models' held-out losses, where the results are; "" for none. They are more rows.
        time_of: Labels of runs; only lines whose step takes at most 1.1 times as long count.
    """

    title: str
    rows: tuple[str, ...] = ("model",)
    columns: tuple[str, ...] = ("task",)
    value: str = "accuracy"
    where: Where = field(default_factory=dict)
    over: tuple[str, ...] = ANY_SIZE
    mean: bool = False
    losses: str = ""
    time_of: Where = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A figure: a panel for each value of `panel`, a line with a band for each of `series`.

    Attributes:
        kind: "lines" (y against x), "spectra" (eigenvalues in the complex plane) or "ranking" (the mean of y over the
            values of `across`, beside `published` means).
        x: A label, a number of the model such as "state_size", or "test length".
        published: Mean and deviation by name, from other papers.
    """

    title: str
    kind: str = "lines"
    x: str = ""
    y: str = "accuracy"
    series: tuple[str, ...] = ("model",)
    panel: str = "task"
    where: Where = field(default_factory=dict)
    over: tuple[str, ...] = ANY_SIZE
    log_x: bool = False
    log_y: bool = False
    across: str = ""
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper: the value of the runs `where` is equal to, above or below a number or other runs.

    Attributes:
        relation: "equal", "above" or "below".
        number: The paper's number, or a bound.
        against: Other runs, instead of a number.
        over: Labels whose value is chosen on validation data.
        across: A label over whose values the means are averaged.
    """

    text: str
    where: Where
    relation: str = "equal"
    number: float | None = None
    against: Where | None = None
    value: str = "accuracy"
    over: tuple[str, ...] = ANY_SIZE
    across: str = ""
    source: str = "arXiv 2602.12021"


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper. What it shows is told in `notes/NAME.md` beside the experiments.

    Attributes:
        name: How commands and pages call it.
        question: What it answers, in a sentence or two.
        presets: Grids by name: "full", and "small" for minutes on two cores.
        figures: By the name of the picture's file.
        is_timing: Its jobs are timings, which run one at a time.
    """

    name: str
    title: str
    question: str
    presets: Mapping[str, Sequence[Grid]]
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    is_timing: bool = False
