"""A ranking: one line for each model, its mean over several tasks, published values among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from statemix_research.paper.selection import ACCURACIES, Run, averaged, grouped, numbers, select
from statemix_research.sweeps.experiment import FigureView

from statemix.analysis.statistics import Spread
from statemix.report.groups import COLORS
from statemix.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PUBLISHED = "#777777"


class Entry(NamedTuple):
    """A line of a ranking: what it is, its mean over the tasks, the value of every run, and whether it is ours."""

    label: str
    value: Spread
    runs: list[float]
    ours: bool = True


def entries_of(view: FigureView, rows: Sequence[Run]) -> list[Entry]:
    """The lines, the best last. A model that was not run on every task has none: its mean would be another number.

    In every task the setting is the one chosen on validation data.
    """
    asked = view.where.get(view.across)
    tasks = len(asked if isinstance(asked, list) else grouped(rows, (view.across,)))
    entries = [
        Entry(f"{name} (published)", Spread(mean, deviation, 1), [], ours=False)
        for name, (mean, deviation) in view.published.items()
    ]
    for name, members in grouped(rows, view.series).items():
        found = [select(runs, view.over, view.y) for runs in grouped(members, (view.across,)).values()]
        chosen = [one.chosen for one in found if one is not None]
        if len(chosen) == tasks:
            runs = [value for one in chosen for value in numbers(one.runs, view.y)]
            entries.append(Entry(", ".join(map(str, name)), averaged([one.value for one in chosen]), runs))
    return sorted(entries, key=lambda one: one.value.mean)


def shown(text: object) -> str:
    """Text as a figure shows it: one line, and dollars are no mathematics."""
    return visible(text).replace("$", r"\$")


def draw_ranking(axes: Axes, view: FigureView, rows: Sequence[Run], places: object) -> None:
    """A point for every entry, bars for its deviation, a faint point for every run of every task."""
    entries = entries_of(view, rows)
    for height, one in enumerate(entries):
        color, marker = (COLORS[0], "o") if one.ours else (PUBLISHED, "D")
        axes.plot(one.runs, [height] * len(one.runs), ".", color=color, alpha=0.3, markersize=5)
        axes.errorbar(one.value.mean, height, xerr=one.value.deviation, color=color, marker=marker, markersize=5,
                      capsize=2)  # fmt: skip
    axes.set_yticks(range(len(entries)), [shown(one.label) for one in entries], fontsize=8.5)
    several = len(grouped(rows, (view.across,))) > 1
    axes.set_xlabel(view.y.replace("_", " ") + (f", mean over the {view.across}s" if several else ""))
    axes.set_xlim(0, 1.03 if view.y in ACCURACIES else None)
    axes.xaxis.set_major_formatter(lambda x, place: f"{x:,.10g}".replace(",", "\u2009"))
