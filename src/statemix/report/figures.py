"""The figures of a report, as matplotlib figures without global state, and what their captions say of the runs."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from statemix.analysis.accounting import mixers
from statemix.analysis.spectra import has_transitions, transition_eigenvalues
from statemix.extras import require
from statemix.report.groups import Group, merge_groups, shorten
from statemix.training import load_run

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

PNG_DPI = 160

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

GREY: Any = {"color": "#666666", "fontsize": 9}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. ImportError says how to install matplotlib."""
    require("matplotlib")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def render(make: Callable[[], Figure]) -> tuple[bytes, bytes]:
    """A figure, made and saved under `STYLE`, as SVG (the same bytes for the same figure) and as PNG."""
    require("matplotlib")
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, svg, png = make(), io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=PNG_DPI, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI)
    return svg.getvalue(), png.getvalue()


def learning_curves(groups: list[Group]) -> Figure:
    """Training loss and, below it, validation accuracy against the step."""
    figure = new_figure(WIDTH, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_curves(upper, groups, "loss")
    upper.set(ylabel="training loss", ylim=(0, None))
    _draw_curves(lower, groups, "accuracy")
    lower.set(xlabel="step", ylabel="validation accuracy", ylim=(0, 1.03))
    _add_legend(figure, lower)
    return figure


def _draw_curves(axes: Axes, groups: list[Group], name: str) -> None:
    import pandas

    for group in groups:
        curves = [run.curves[name].rename(str(k)) for k, run in enumerate(group.runs)]
        values = pandas.concat([curve for curve in curves if len(curve)] or curves[:1], axis=1).sort_index()
        least = values.shape[1] if values.shape[1] <= SINGLE_RUNS else values.shape[1] / 2
        _draw_series(axes, group, values[values.count(axis=1) >= least], marker="")


def _draw_series(axes: Axes, group: Group, values: Any, marker: str) -> None:
    """Rows of values, a column for each run: their mean, a band from the lowest to the highest, faint single runs."""
    color, mean = group.look.color, values.mean(axis=1)
    label = (
        f"{group.label}: {group.configurations} configurations" if group.configurations > 1 else group.label
    )
    axes.plot(
        mean.index,
        mean,
        group.line,
        color=color,
        marker=marker,
        linewidth=2.2,
        label=shorten(label, 36),
        zorder=3,
    )
    if values.shape[1] > 1:
        axes.fill_between(
            mean.index, values.min(axis=1), values.max(axis=1), color=color, alpha=0.15, linewidth=0
        )
    if 1 < values.shape[1] <= SINGLE_RUNS:
        axes.plot(mean.index, values, "." if marker else "-", color=color, alpha=0.3, linewidth=1)


def accuracy_length(groups: list[Group]) -> Figure:
    """Test accuracy against test length."""
    figure = new_figure(WIDTH, 4.2)
    axes = figure.subplots()
    draw_lengths(axes, groups)
    _add_legend(figure, axes)
    return figure


def draw_lengths(axes: Axes, groups: list[Group]) -> None:
    """Accuracy against test length, from the lowest to the highest of the seeds."""
    import pandas

    tested = [(group, [run.accuracy for run in group.runs if run.accuracy]) for group in groups]
    for group, accuracies in tested:
        values = pandas.DataFrame(map(pandas.Series, accuracies or [{}]), dtype=float).T.sort_index()
        _draw_series(axes, group, values, group.look.marker)
    every = [value for _, found in tested for accuracy in found for value in accuracy.values()]
    lengths = sorted({length for _, found in tested for accuracy in found for length in accuracy})
    if lengths:
        axes.set_xscale("log", base=2)
        shown = _spaced(lengths)
        axes.set_xticks(shown, list(map(str, shown)))
    else:
        axes.annotate("no run tested yet", (0.5, 0.5), xycoords="axes fraction", ha="center", color="#666666")
        axes.set_xticks([])
    axes.minorticks_off()
    low = min(every, default=0.0)
    bottom = low - max(0.1 * (1 - low), 1e-4) if low >= SATURATED else 0.0
    axes.set(xlabel="test length", ylabel="test accuracy", ylim=(bottom, 1 + 0.03 * (1 - bottom)))
    _mark_training(axes, groups, bool(lengths))


def _spaced(lengths: list[int]) -> list[int]:
    """Lengths for ticks, less those whose labels would overlap the one before."""
    span = math.log2(lengths[-1] / lengths[0]) or 1.0
    shown = lengths[:1]
    for length in lengths[1:]:
        if math.log2(length / shown[-1]) >= (len(str(length)) + len(str(shown[-1]))) * 0.012 * span:
            shown.append(length)
    return shown


def _mark_training(axes: Axes, groups: list[Group], tested: bool) -> None:
    """A line at the training length and, where the answers are equally likely by symmetry, at chance."""
    tasks = {id(run.task): run.task for group in groups for run in group.runs}.values()
    lengths, chances = {task.length for task in tasks}, {1 / task.vocab_size for task in tasks}
    bottom, _ = axes.get_ylim()
    where: Any
    if tested and len(lengths) == 1:
        length = lengths.pop()
        axes.axvline(length, color="#888888", linestyle=":", linewidth=1.2)
        where = {"xycoords": ("data", "axes fraction"), "xytext": (4, 3), "textcoords": "offset points"}
        axes.annotate("trained here", (length, 0), **where, **GREY)
    if all(task.name in EQUALLY_LIKELY for task in tasks) and len(chances) == 1 and bottom == 0:
        chance = chances.pop()
        axes.axhline(chance, color="#888888", linestyle="--", linewidth=1)
        where = {"xycoords": ("axes fraction", "data"), "xytext": (0, -3), "textcoords": "offset points"}
        axes.annotate("chance", (1, chance), ha="right", va="top", **where, **GREY)


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
    best = sorted(groups, key=Group.best_validation, reverse=True)[:PANELS]
    return [group for group in groups if any(group is one for one in best)]


def draw_spectrum(axes: Axes, group: Group) -> None:
    """Eigenvalues inside the unit circle, entitled with the group's label, and a note if there are none."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#888888", linewidth=1))
    found = group_eigenvalues(group)
    points = torch.cat([values.flatten() for values in found] or [torch.zeros(0, dtype=torch.complex128)])
    axes.plot(
        points.real, points.imag, ".", color=group.look.color, alpha=0.12, markersize=3, rasterized=True
    )
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal", xlabel="Re λ", ylabel="Im λ")
    axes.set_xticks([-1, 0, 1])
    axes.set_yticks([-1, 0, 1])
    axes.set_title(shorten(group.label, 21), fontsize=9.5)
    if points.isnan().all():
        none = "no transitions" if any(run.has_weights for run in group.runs) else "no weights yet"
        note = "diverged" if len(points) else none
        axes.annotate(note, (0, 0), ha="center", va="center", color="#666666", backgroundcolor="white")


def group_eigenvalues(group: Group) -> list[torch.Tensor]:
    """The eigenvalues of every mixer of a group's first seed with weights, on at most 32 test sequences; or nothing.

    A run that diverged comes last. RunError for weights that cannot be read.
    """
    trained = [run for run in group.runs if run.has_weights]
    if not trained:
        return []
    run = min(trained, key=lambda run: run.status == "diverged")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of a run that is not finished: the page says so itself
        _, model = load_run(run.folder)
    for mixer in filter(has_transitions, mixers(model)):
        mixer.backend = "reference"  # type: ignore[assignment]  # for so few tokens no kernels need be loaded
    count = max(1, min(32, 4096 // run.task.input_length()))
    tokens = run.task.generate(count, seed=run.seed, split="test").inputs
    return transition_eigenvalues(model, tokens, max_matrices=3000)


def _caption(what: str, groups: list[Group], counts: list[int]) -> str:
    """What is drawn, of how many runs and groups, and where they were trained; `counts`: runs behind each line."""
    runs, behind = sum(len(group.runs) for group in groups), sorted(filter(None, counts))
    several = f"{len(groups)} configurations in {len(counts)} group{'' if len(counts) == 1 else 's'}"
    parts = [
        what,
        f"{_runs(runs)}, grouped by model: {several}." if len(counts) < len(groups) else f"{_runs(runs)}.",
    ]
    if behind and behind[-1] > 1:
        span = str(behind[0]) if behind[0] == behind[-1] else f"{behind[0]} to {behind[-1]}"
        parts.append(f"Line: mean over n = {span} runs. Band: from the lowest to the highest.")
        parts += ["Faint: single runs."] if any(1 < count <= SINGLE_RUNS for count in behind) else []
    return " ".join(parts)


def hardware(groups: list[Group]) -> str:
    """ "Trained on NVIDIA H200 and cpu." Empty where no run has ended."""
    devices = dict.fromkeys(run.summary.get("device") for group in groups for run in group.runs)
    names = [str(device).upper() if device == "cpu" else str(device) for device in devices if device]
    return f" Trained on {' and '.join(names)}." if names else ""


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def caption_lengths(groups: list[Group]) -> str:
    """Of the figure of test accuracy."""
    counts = [sum(bool(run.accuracy) for run in group.runs) for group in merge_groups(groups)]
    runs = sum(len(group.runs) for group in groups)
    untested = (
        f" Without a test accuracy: {runs - sum(counts)} of {_runs(runs)}." if runs > sum(counts) else ""
    )
    return _caption("Test accuracy with the final weights.", groups, counts) + untested + hardware(groups)


def caption_curves(groups: list[Group]) -> str:
    """Of the figure of learning curves."""
    counts = [len(group.runs) for group in merge_groups(groups)]
    return _caption("Training loss and validation accuracy by step.", groups, counts) + hardware(groups)


def caption_eigenvalues(groups: list[Group]) -> str:
    """Of the figure of eigenvalues."""
    what = (
        "Eigenvalues of the learned transitions A_t on test sequences, every layer, of one seed "
        "(the first that has weights and did not diverge). The circle has radius 1."
    )
    if len(groups) <= PANELS:
        return what
    return f"{what} Shown: the {PANELS} of {len(groups)} configurations with the highest validation accuracy."


class FigureOf(NamedTuple):
    """One figure of the page: its heading, how it is made, and what its caption says of these runs."""

    heading: str
    make: Callable[[list[Group]], Figure]
    caption: Callable[[list[Group]], str]


FIGURES: dict[str, FigureOf] = {
    "accuracy_length": FigureOf(
        "Accuracy against test length", lambda groups: accuracy_length(merge_groups(groups)), caption_lengths
    ),
    "learning_curves": FigureOf(
        "Learning curves", lambda groups: learning_curves(merge_groups(groups)), caption_curves
    ),
    "eigenvalues": FigureOf("Learned eigenvalues", eigenvalues, caption_eigenvalues),
}
"""Every figure of the page by file name, in the order of the page."""
