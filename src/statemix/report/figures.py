"""The figures of a report, as matplotlib figures without global state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from statemix.analysis.statistics import spread
from statemix.extras import missing
from statemix.report.groups import Group
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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. ImportError says how to install matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(missing("matplotlib")) from None
    return Figure(figsize=(width, height), layout="constrained")


def draw_curves(axes: Axes, groups: list[Group], kind: str, value: str) -> None:
    """Every seed a faint line, their mean (where all have a value) a strong one."""
    for group in groups:
        together: dict[int, list[float]] = {}
        for run in group.runs:
            steps, values = run.curve(kind, value)
            for step, number in zip(steps, values, strict=True):
                together.setdefault(step, []).append(number)
            if len(group.runs) > 1:
                axes.plot(steps, values, color=group.color, alpha=0.3, linewidth=1)
        whole = {step: numbers for step, numbers in together.items() if len(numbers) == len(group.runs)}
        means = [spread(numbers).mean for numbers in whole.values()]
        axes.plot(list(whole), means, color=group.color, linewidth=2.2, label=group.label)
    axes.set_xlabel("step")


def learning_curves(groups: list[Group]) -> Figure:
    """Training loss and validation accuracy against the step."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    draw_curves(left, groups, "train", "loss")
    left.set(ylabel="training loss", ylim=(0, None))
    draw_curves(right, groups, "eval", "accuracy")
    right.set(ylabel="validation accuracy", ylim=(0, 1.03))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=min(3, len(groups)))
    return figure


def draw_lengths(axes: Axes, groups: list[Group]) -> None:
    """Accuracy against test length: mean, ± one standard deviation, every seed a faint point."""
    lengths: set[int] = set()
    for group in groups:
        tested = [run.accuracy() for run in group.runs if run.accuracy()]
        mine = sorted({length for accuracy in tested for length in accuracy})
        spreads = [spread(a[length] for a in tested if length in a) for length in mine]
        means = [s.mean for s in spreads]
        axes.plot(
            mine, means, color=group.color, marker=group.marker, linewidth=2.2, label=group.label, zorder=3
        )
        if len(tested) > 1:
            low = [s.mean - s.deviation for s in spreads]
            high = [s.mean + s.deviation for s in spreads]
            axes.fill_between(mine, low, high, color=group.color, alpha=0.15, linewidth=0)
            for accuracy in tested:
                axes.plot(list(accuracy), list(accuracy.values()), ".", color=group.color, alpha=0.35)
        lengths |= set(mine)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(lengths), [str(length) for length in sorted(lengths)])
    axes.minorticks_off()
    _mark_training(axes, groups)
    axes.set(xlabel="test length", ylabel="test accuracy", ylim=(0, 1.03))


def _mark_training(axes: Axes, groups: list[Group]) -> None:
    """A line at the training length and, where the answers are equally likely by symmetry, at chance."""
    tasks = [group.runs[0].task() for group in groups]
    if len({task.length for task in tasks}) == 1:
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
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    draw_lengths(axes, groups)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=min(3, len(groups)))
    return figure


def eigenvalues(groups: list[Group]) -> Figure:
    """One panel per configuration: the eigenvalues of its learned A_t."""
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure = new_figure(3.3 * columns, 3.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, group in zip(panels, groups, strict=False):
        draw_spectrum(axes, group)
    for axes in panels[len(groups) :]:
        axes.remove()
    return figure


FIGURES: dict[str, tuple[Callable[[list[Group]], Figure], str]] = {
    "learning_curves": (
        learning_curves,
        "Training loss and validation accuracy. Faint: single seeds. Strong: their mean, as far as all of them go.",
    ),
    "accuracy_length": (
        accuracy_length,
        "Accuracy on test sequences of the trained length and longer. Points: single seeds. "
        "Line and band: mean ± one standard deviation.",
    ),
    "eigenvalues": (
        eigenvalues,
        "Eigenvalues of the learned transitions A_t on test sequences, every layer, of one seed "
        "(the first that has weights and did not diverge). The circle has radius 1.",
    ),
}
"""Every figure of the page by file name: how it is made, and its caption."""
