"""The figures of a report, as matplotlib figures without global state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from statemix.analysis.statistics import spread
from statemix.extras import missing
from statemix.report.captions import PANELS, SINGLE_RUNS, caption_curves, caption_eigenvalues, caption_lengths
from statemix.report.groups import Group, merge_groups
from statemix.report.labels import shorten
from statemix.report.spectrum import draw_spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "statemix",
    "text.parse_math": False,
}
"""Applied while a figure is made and saved; nothing of it stays."""

EQUALLY_LIKELY = ("permutation", "cyclic", "alternating")
"""Tasks whose answers are equally likely by symmetry, so that chance is 1 / vocabulary."""


WIDTH = 6.4
"""Inches of a figure: on a narrow screen it is scaled to two thirds and still read."""

LABEL_WIDTH = 36
"""Characters of a line of a legend's label."""

LEGEND_CHARACTERS = 90
"""Characters that stand side by side in a legend."""

TICK_ROOM = 0.012
"""Of the axis, that half a digit of a tick's label takes."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. ImportError says how to install matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(missing("matplotlib")) from None
    return Figure(figsize=(width, height), layout="constrained")


def legend_label(group: Group) -> str:
    """A group's label in a legend; of a merged group with the number of its configurations."""
    several = f": {group.configurations} configurations" if group.configurations > 1 else ""
    return shorten(group.label + several, LABEL_WIDTH)


def draw_curves(axes: Axes, groups: list[Group], kind: str, value: str) -> None:
    """Every run a faint line, their mean as far as all of them go a strong one.

    Of more than `SINGLE_RUNS` runs the range instead of single lines, as far as half of them go.
    """
    for group in groups:
        curves = [curve for curve in (run.curve(kind, value) for run in group.runs) if curve.steps]
        few = len(curves) <= SINGLE_RUNS
        together: dict[int, list[float]] = {}
        for curve in curves:
            for step, number in zip(curve.steps, curve.values, strict=True):
                together.setdefault(step, []).append(number)
            if few and len(curves) > 1:
                axes.plot(curve.steps, curve.values, color=group.color, alpha=0.3, linewidth=1)
        least = len(curves) if few else len(curves) / 2
        common = {step: numbers for step, numbers in sorted(together.items()) if len(numbers) >= least}
        means = [spread(numbers).mean for numbers in common.values()]
        axes.plot(list(common), means, color=group.color, linewidth=2.2, label=legend_label(group))
        if not few:
            _draw_range(axes, group, list(common), list(common.values()))


def _draw_range(axes: Axes, group: Group, places: list[int], values: list[list[float]]) -> None:
    """A band from the lowest to the highest of the values at each place."""
    axes.fill_between(
        places, list(map(min, values)), list(map(max, values)), color=group.color, alpha=0.15, linewidth=0
    )


def learning_curves(groups: list[Group]) -> Figure:
    """Training loss and, below it, validation accuracy against the step."""
    figure = new_figure(WIDTH, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_curves(upper, groups, "train", "loss")
    upper.set(ylabel="training loss", ylim=(0, None))
    draw_curves(lower, groups, "eval", "accuracy")
    lower.set(xlabel="step", ylabel="validation accuracy", ylim=(0, 1.03))
    _add_legend(figure, lower)
    return figure


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, in as many columns as the longest label leaves room for."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(line) for label in labels for line in label.split("\n")), default=1)
    columns = max(1, min(3, len(labels), LEGEND_CHARACTERS // (longest + 8)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=10)


def draw_lengths(axes: Axes, groups: list[Group]) -> None:
    """Accuracy against test length: the mean of the seeds, from the lowest to the highest, every seed a faint point."""
    lengths: set[int] = set()
    for group in groups:
        tested = [run.accuracy() for run in group.runs if run.accuracy()]
        mine = sorted({length for accuracy in tested for length in accuracy})
        values = [[accuracy[length] for accuracy in tested if length in accuracy] for length in mine]
        means = [spread(numbers).mean for numbers in values]
        axes.plot(
            mine, means, color=group.color, marker=group.marker, linewidth=2.2, label=legend_label(group), zorder=3
        )  # fmt: skip
        if len(tested) > 1:
            _draw_range(axes, group, mine, values)
        if 1 < len(tested) <= SINGLE_RUNS:
            for accuracy in tested:
                axes.plot(list(accuracy), list(accuracy.values()), ".", color=group.color, alpha=0.35)
        lengths |= set(mine)
    if lengths:
        axes.set_xscale("log", base=2)
        _mark_lengths(axes, sorted(lengths))
    else:
        axes.annotate("no run tested yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color="#666666")
        axes.set_xticks([])
    axes.minorticks_off()
    _mark_training(axes, groups, bool(lengths))
    axes.set(xlabel="test length", ylabel="test accuracy", ylim=(0, 1.03))


def _mark_lengths(axes: Axes, lengths: list[int]) -> None:
    """Ticks at the tested lengths, less those that would stand in the way of the one before."""
    span = math.log2(lengths[-1] / lengths[0]) or 1.0
    shown = lengths[:1]
    for length in lengths[1:]:
        room = (len(str(length)) + len(str(shown[-1]))) * TICK_ROOM * span
        if math.log2(length / shown[-1]) >= room:
            shown.append(length)
    axes.set_xticks(shown, [str(length) for length in shown])


def _mark_training(axes: Axes, groups: list[Group], tested: bool) -> None:
    """A line at the training length and, where the answers are equally likely by symmetry, at chance."""
    tasks = list({id(task): task for group in groups for run in group.runs for task in [run.task()]}.values())
    if tested and len({task.length for task in tasks}) == 1:
        axes.axvline(tasks[0].length, color="#888888", linestyle=":", linewidth=1.2)
        axes.annotate("trained here", (tasks[0].length, 0.02), xytext=(4, 0), textcoords="offset points",
                      color="#666666", fontsize=9)  # fmt: skip
    if all(task.name in EQUALLY_LIKELY for task in tasks):
        chances = {1 / task.vocab_size for task in tasks}
        if len(chances) == 1:
            chance = chances.pop()
            axes.axhline(chance, color="#888888", linestyle="--", linewidth=1)
            axes.annotate("chance", (1, chance), xycoords=("axes fraction", "data"), xytext=(0, -3),
                          textcoords="offset points", ha="right", va="top", color="#666666", fontsize=9)  # fmt: skip


def accuracy_length(groups: list[Group]) -> Figure:
    """Test accuracy against test length."""
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    draw_lengths(axes, groups)
    _add_legend(figure, axes)
    return figure


def eigenvalues(groups: list[Group]) -> Figure:
    """One panel per configuration, at most `PANELS`: the eigenvalues of its learned A_t."""
    shown = spectrum_groups(groups)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    side = WIDTH / max(columns, 2)
    figure = new_figure(side * columns, (side + 0.35) * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, group in zip(panels, shown, strict=False):
        draw_spectrum(axes, group)
    for axes in panels[len(shown) :]:
        axes.remove()
    return figure


def spectrum_groups(groups: list[Group]) -> list[Group]:
    """The configurations whose eigenvalues are drawn: all, or the `PANELS` best on the validation split."""
    if len(groups) <= PANELS:
        return groups
    ranked = sorted(range(len(groups)), key=lambda k: groups[k].best_validation(), reverse=True)
    return [groups[k] for k in sorted(ranked[:PANELS])]


class FigureOf(NamedTuple):
    """One figure of the page: its heading, how it is made, and what its caption says of these runs."""

    heading: str
    make: Callable[[list[Group]], Figure]
    caption: Callable[[list[Group]], str]


FIGURES: dict[str, FigureOf] = {
    "accuracy_length": FigureOf("Accuracy against test length", lambda g: accuracy_length(merge_groups(g)),
                                caption_lengths),
    "learning_curves": FigureOf(
        "Learning curves", lambda g: learning_curves(merge_groups(g)),
        caption_curves,
    ),
    "eigenvalues": FigureOf("Learned eigenvalues", eigenvalues, caption_eigenvalues),
}  # fmt: skip
"""Every figure of the page by file name, in the order of the page."""
