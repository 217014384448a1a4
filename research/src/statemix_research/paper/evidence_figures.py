"""Figures of an experiment: every run a faint point, means and deviations strong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from statemix_research.paper.evidence_ranking import draw_ranking, entries_of, shown
from statemix_research.paper.evidence_tables import at_length, listed
from statemix_research.paper.selection import grouped, matching, numbers, select
from statemix_research.sweeps.experiment import FigureView

from statemix.analysis.statistics import Spread, spread
from statemix.report.figures import new_figure
from statemix.report.groups import COLORS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
Point = tuple[float, Spread, list[float]]
"""x, the mean and deviation of y, and y of every run."""

COSTS = ("flops_per_step", "flops_per_token", "state_size", "parameters", "mixer_parameters")
"""Numbers of a model that are no label: the runs of one size share them."""

MOST_COLUMNS = 4

LINES = ("-", "--", ":")
"""One after the other as the colors begin anew."""


def draw(view: FigureView, rows: Sequence[Row]) -> Figure | None:
    """The figure, or None when no run has what it shows."""
    mine = matching(rows, view.where)
    panels = {
        name[0]: members for name, members in grouped(mine, (view.panel,)).items()  # panel "": all in one, None
        if any(numbers([row], view.y) or "eigenvalues" in row for row in members)
    }  # fmt: skip
    if not panels or (view.kind == "ranking" and not any(one.ours for one in entries_of(view, mine))):
        return None
    columns = min(MOST_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(*_size(view, mine, columns, lines))
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel, (name, members) in zip(axes, panels.items(), strict=False):
        KINDS[view.kind](panel, view, members, _places(view, mine))
        panel.set_title("" if name is None else shown(name), fontsize=10.5)
    for panel in axes[len(panels) :]:
        panel.remove()
    handles: dict[str, Any] = {}
    for panel in axes[: len(panels)]:
        found, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    order = (_label(view.series, name) for name in _places(view, mine))
    handles = {label: handles[label] for label in order if label in handles} | handles
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=_legend_columns(figure.get_figwidth(), handles),
            fontsize=8.5,
            handlelength=3.4,
        )
    figure.suptitle(view.title, fontsize=11.5)
    return figure


def _size(view: FigureView, rows: Sequence[Row], columns: int, lines: int) -> tuple[float, float]:
    """Inches: a ranking grows with its entries, other figures with their panels."""
    if view.kind == "ranking":
        return 7.2, 1.4 + 0.2 * len(entries_of(view, rows))
    return 3.6 * columns + 0.8, 3.4 * lines + 0.9


def _legend_columns(width: float, labels: Iterable[str]) -> int:
    """As many as fit into `width` inches, at most four; a letter of a legend takes some 0.07 inches, a line 0.7."""
    return max(1, min(4, int(width / (0.7 + 0.07 * max(map(len, labels))))))


def _places(view: FigureView, rows: Sequence[Row]) -> dict[tuple[Any, ...], int]:
    """A number for every series, the same in all panels."""
    return {name: k for k, name in enumerate(listed(rows, view.series))}


def _lines(axes: Axes, view: FigureView, rows: Sequence[Row], places: Mapping[tuple[Any, ...], int]) -> None:
    series = {name: points_of(view, members) for name, members in listed(rows, view.series).items()}
    drawn = [point for points in series.values() for point in points]
    most = max((len(values) for _, _, values in drawn), default=0)
    for name in [name for name, points in series.items() if points]:
        points = sorted(series[name], key=lambda point: point[0])
        k = places[name]
        look: Any = {"color": COLORS[k % len(COLORS)], "marker": MARKERS[k % len(MARKERS)], "markersize": 5,
                     "linestyle": LINES[k // len(COLORS) % len(LINES)]}  # fmt: skip
        for x, _, values in points:
            axes.plot([x] * len(values), values, ".", color=look["color"], alpha=0.3, markersize=5)
        xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
        axes.errorbar(xs, [y.mean for y in ys], yerr=[y.deviation for y in ys], **look, linewidth=1.8, capsize=2,
                      label=_label(view.series, name))  # fmt: skip
        fewer = [(x, y.mean) for x, y, values in points if len(values) < most]
        look |= {"linestyle": "", "markerfacecolor": "white", "zorder": 3}
        axes.plot([x for x, _ in fewer], [y for _, y in fewer], **look)
    if view.log_x:
        axes.set_xscale("log", base=2 if "length" in view.x else 10)
        _write_out(axes.xaxis)
    if view.x == "m" or "length" in view.x:  # few values, each of which is told
        axes.set_xticks(sorted({x for x, _, _ in drawn}))
        axes.minorticks_off()
    if view.log_y:
        axes.set_yscale("log")
        _write_out(axes.yaxis)
    elif view.y == "accuracy":
        axes.set_ylim(0, 1.03)
    axes.set(xlabel=view.x.replace("_", " "), ylabel=view.y.replace("_", " "))


def _write_out(axis: Axis) -> None:
    """The numbers of a logarithmic axis as numbers; beside the powers 2 and 5 times 10, where there are few powers."""
    from matplotlib.ticker import FuncFormatter

    def written(value: float, position: int | None) -> str:
        return f"{value:,.10g}".replace(",", "\u2009")

    def between(value: float, position: int | None) -> str:
        low, high = axis.get_view_interval()
        few = high < 100 * low and f"{value:e}"[0] in "25"
        return written(value, position) if few else ""

    axis.set_major_formatter(FuncFormatter(written))
    axis.set_minor_formatter(FuncFormatter(between))


def _label(labels: Sequence[str], values: Sequence[Any]) -> str:
    plain = ("model", "layer", "normalization")
    named = zip((label.replace("_", " ") for label in labels), values, strict=True)
    return shown(", ".join(str(v) if key in plain else f"{key} {v}" for key, v in named))


def points_of(view: FigureView, rows: Sequence[Row]) -> list[Point]:
    """The points of one line: at each x the setting chosen on validation data, with every run of it."""
    if view.x == "test length":
        selection = select(rows, view.over, view.y)
        lengths = sorted({int(length) for row in rows for length in row.get("accuracies", {})})
        if selection is None:
            return []
        runs = [run["accuracies"] for run in selection.chosen.runs if run.get("accuracies")]
        return [
            (n, at_length(selection.chosen, n), [run[str(n)] for run in runs if str(n) in run])
            for n in lengths
        ]
    by = ("basis", "size") if view.x in COSTS else (view.x,)
    points = []
    for members in grouped(rows, by).values():
        selection, x = select(members, view.over, view.y), numbers(members, view.x)
        if selection is not None and x:
            points.append((spread(x).mean, selection.chosen.value, numbers(selection.chosen.runs, view.y)))
    return points


def _spectra(
    axes: Axes, view: FigureView, rows: Sequence[Row], places: Mapping[tuple[Any, ...], int]
) -> None:
    """The eigenvalues of the chosen learning rate's runs, all seeds, inside the unit circle."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#888888", linewidth=1))
    selection = select(rows, view.over)
    for k, run in enumerate(selection.chosen.runs if selection is not None else ()):
        real, imaginary = zip(*run.get("eigenvalues") or [[float("nan")] * 2], strict=True)
        axes.plot(real, imaginary, ".", color=COLORS[k % len(COLORS)], alpha=0.2, markersize=3, rasterized=True,
                  label=f"seed {run['seed']}")  # fmt: skip
    axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal", xlabel="Re λ", ylabel="Im λ")


KINDS = {"lines": _lines, "spectra": _spectra, "ranking": draw_ranking}
"""How each kind of figure draws a panel."""
