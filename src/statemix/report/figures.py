"""The figures of a report, and what their captions say of the runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from statemix.analysis import has_transitions, mixers, transition_eigenvalues
from statemix.report.drawing import GREY, draw_eigenvalues, draw_line, new_figure, new_panels
from statemix.report.runs import Group, Record, merge_groups, shorten, tasks_of, trained_lengths
from statemix.training import load_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.4
"""Inches of a figure: on a narrow screen it is scaled to two thirds and still read."""

PANELS = 8
"""Configurations whose eigenvalues are drawn."""

SINGLE_RUNS = 20
"""Runs of a group that are drawn one by one."""

SATURATED = 0.995
"""Where every accuracy is at least this, the axis begins just below the lowest."""

EQUALLY_LIKELY = ("permutation", "cyclic", "alternating")
"""Tasks whose answers are equally likely by symmetry, so that chance is 1 / vocabulary."""


def learning_curves(groups: list[Group]) -> Figure:
    """Training loss and, below it, validation accuracy against the step."""
    import pandas

    figure = new_figure(WIDTH, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name in ((upper, "loss"), (lower, "accuracy")):
        for group in merge_groups(groups):
            curves = [run.curves[name] for run in group.runs]
            drawn = [curve for curve in curves if len(curve)] or curves[:1]
            values = pandas.concat(drawn, axis=1, keys=range(len(drawn))).sort_index()
            least = len(drawn) if len(drawn) <= SINGLE_RUNS else len(drawn) / 2
            _draw_series(axes, group, values[values.count(axis=1) >= least], marker="")
    upper.set(ylabel="training loss", ylim=(0, None))
    lower.set(xlabel="step", ylabel="validation accuracy", ylim=(0, 1.03))
    _add_legend(figure, lower)
    return figure


def _draw_series(axes: Axes, group: Group, values: Any, marker: str) -> None:
    """Rows of values, a column for each run: their mean, a band from the lowest to the highest, faint single runs."""
    color, x = group.look.color, values.index.to_numpy(float)
    ends = (values.mean(axis=1), values.min(axis=1), values.max(axis=1))
    several = f": {group.configurations} configurations" if group.configurations > 1 else ""
    style = {"linestyle": group.line, "marker": marker, "linewidth": 2.2, "zorder": 3}
    draw_line(axes, x, *ends, color, label=shorten(group.label + several, 36), **style)
    if 1 < values.shape[1] <= SINGLE_RUNS:
        axes.plot(x, values, "." if marker else "-", color=color, alpha=0.3, linewidth=1)


def accuracy_length(groups: list[Group]) -> Figure:
    """Test accuracy against test length."""
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    draw_lengths(axes, groups)
    _add_legend(figure, axes)
    return figure


def draw_lengths(axes: Axes, groups: list[Group]) -> None:
    """Accuracy against test length, from the lowest to the highest of the seeds; the training length and chance."""
    import pandas
    from matplotlib.ticker import LogLocator, ScalarFormatter

    low = 1.0
    for group in merge_groups(groups):
        tested = [run.accuracy for run in group.runs if run.accuracy] or [{}]
        values = pandas.DataFrame(map(pandas.Series, tested), dtype=float).T.sort_index()
        _draw_series(axes, group, values, group.look.marker)
        low = min([low, *values.min()])
    if any(run.accuracy for group in groups for run in group.runs):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
    else:
        low = 0.0
        axes.annotate("no run tested yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        axes.set_xticks([])
    bottom = low - max(0.1 * (1 - low), 1e-4) if low >= SATURATED else 0.0
    axes.set(xlabel="test length", ylabel="test accuracy", ylim=(bottom, 1 + 0.03 * (1 - bottom)))
    sizes = {task.vocab_size if task.name in EQUALLY_LIKELY else 0 for task in tasks_of(groups)}
    if len(lengths := trained_lengths(groups)) == 1:
        axes.axvline(lengths[0], color=GREY, linestyle=":", linewidth=1.2, label="training length")
    if len(sizes) == 1 and bottom == 0 < min(sizes):
        axes.axhline(1 / min(sizes), color=GREY, linestyle="--", linewidth=1, label="chance")


def _add_legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, in as many columns as the longest label leaves room for."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(line) for label in labels for line in label.split("\n")), default=1)
    columns = max(1, min(3, len(labels), 90 // (longest + 8)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, fontsize=10)


def eigenvalues(groups: list[Group]) -> Figure:
    """One panel per configuration, at most `PANELS`: the eigenvalues of its learned A_t."""
    shown = spectrum_groups(groups)
    columns = min(3, len(shown))
    side = WIDTH / max(columns, 2)
    figure, panels = new_panels(len(shown), columns, (side, side + 0.35))
    for axes, group in zip(panels, shown, strict=True):
        draw_spectrum(axes, group)
    return figure


def spectrum_groups(groups: list[Group]) -> list[Group]:
    """The configurations whose eigenvalues are drawn: all, or the `PANELS` best on the validation split."""
    best = sorted(groups, key=Group.best_validation, reverse=True)[:PANELS]
    return [group for group in groups if group.label in {one.label for one in best}]


def draw_spectrum(axes: Axes, group: Group) -> None:
    """Eigenvalues inside the unit circle, entitled with the group's label, and a note if there are none."""
    found = [values.flatten() for values in group_eigenvalues(group)]
    points = torch.cat(found or [torch.zeros(0, dtype=torch.complex128)])
    draw_eigenvalues(axes, points.real, points.imag, group.look.color)
    axes.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes.set_title(shorten(group.label, 21), fontsize=9.5)
    if points.isnan().all():
        none = "no transitions" if any(run.has_weights for run in group.runs) else "no weights yet"
        note = "diverged" if len(points) else none
        axes.annotate(note, (0, 0), ha="center", va="center", color=GREY, backgroundcolor="white")


def group_eigenvalues(group: Group) -> list[torch.Tensor]:
    """The eigenvalues of every mixer of a group's first seed with weights, on at most 32 test sequences; or nothing.

    A run that diverged comes last. RunError for weights that cannot be read.
    """
    trained = [run for run in group.runs if run.has_weights]
    if not trained:
        return []
    run = min(trained, key=lambda run: run.status == "diverged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of an unfinished run: the page says so itself
        _, model = load_run(run.folder)
    for mixer in filter(has_transitions, mixers(model)):
        mixer.backend = "reference"  # type: ignore[assignment]  # for so few tokens no kernels need be loaded
    count = max(1, min(32, 4096 // run.task.input_length()))
    tokens = run.task.generate(count, seed=run.seed, split="test").inputs
    return transition_eigenvalues(model, tokens, max_matrices=3000)


def _caption(what: str, is_drawn: Callable[[Record], object], groups: list[Group]) -> str:
    """What is drawn, of how many runs and groups, how many are behind each line, and where they were trained."""
    merged = merge_groups(groups)
    runs = [run for group in groups for run in group.runs]
    text = f"{what} {len(runs)} run{'' if len(runs) == 1 else 's'}"
    if len(merged) < len(groups):
        text += f", grouped by model: {len(groups)} configurations in {len(merged)} groups"
    behind = sorted(filter(None, (sum(map(bool, map(is_drawn, group.runs))) for group in merged)))
    if behind and behind[-1] > 1:
        span = str(behind[0]) if behind[0] == behind[-1] else f"{behind[0]} to {behind[-1]}"
        text += f". Line: mean over n = {span} runs. Band: from the lowest to the highest"
        text += ". Faint: single runs" if any(1 < count <= SINGLE_RUNS for count in behind) else ""
    devices = dict.fromkeys(str(run.summary["device"]) for run in runs if run.summary.get("device"))
    names = [name.upper() if name == "cpu" else name for name in devices]
    return f"{text}. Trained on {' and '.join(names)}." if names else f"{text}."


caption_lengths = partial(_caption, "Test accuracy with the final weights.", lambda run: run.accuracy)
caption_curves = partial(_caption, "Training loss and validation accuracy by step.", lambda run: True)


def caption_eigenvalues(groups: list[Group]) -> str:
    """Of the figure of eigenvalues."""
    what = (
        "Eigenvalues of the learned transitions A_t on test sequences, every layer, of one seed "
        "(the first that has weights and did not diverge). The circle has radius 1."
    )
    if len(groups) <= PANELS:
        return what
    return f"{what} Shown: the {PANELS} of {len(groups)} configurations with the highest validation accuracy."


FIGURES: dict[str, tuple[str, Callable[[list[Group]], Figure], Callable[[list[Group]], str]]] = {
    "accuracy_length": ("Accuracy against test length", accuracy_length, caption_lengths),
    "learning_curves": ("Learning curves", learning_curves, caption_curves),
    "eigenvalues": ("Learned eigenvalues", eigenvalues, caption_eigenvalues),
}
"""The figures of the page by file name, in order: a heading, how it is made, what its caption says of the runs."""
