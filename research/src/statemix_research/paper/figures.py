"""Figures of an experiment: a line with a band per model, the same colour for a model everywhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from statemix_research.paper.experiment import Figure
from statemix_research.paper.selection import ACCURACIES, Summary, average, choose, matching
from statemix_research.paper.tables import by_length

from statemix.report import MAX_SERIES, draw_eigenvalues, draw_line, look_of, new_figure, new_panels
from statemix.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

SATURATED = 0.995
"""A panel whose every value is at least this shows nothing."""

COSTS = ("flops_per_step", "flops_per_token", "state_size", "parameters", "mixer_parameters")
"""Numbers of a model that are no label: the runs of one size share them."""

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#555555")
"""Colours of series that are no models (Okabe and Ito)."""

PUBLISHED = "#999999"

NAMES = {
    "flops_per_step": "FLOPs of the recurrences per token",
    "flops_per_token": "FLOPs per token, whole model",
    "tokens_per_s": "tokens per second",
    "state_size": "state size",
}


class Drawn(NamedTuple):
    """A figure, and what its caption says of it."""

    figure: Drawing
    note: str
    n: tuple[int, int]
    """The fewest and the most runs of a point."""


def png_of(figure: Drawing) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def draw(view: Figure, frame: pd.DataFrame) -> Drawn | None:
    """The figure, or None when no run has what it shows. ValueError for more than `MAX_SERIES` series."""
    frame = matching(frame, view.where)
    if view.x == "flops_per_step" and view.x not in frame:  # runs of today count the whole model
        view = replace(view, x="flops_per_token")
    if frame.empty or (view.kind == "spectra" and "eigenvalues" not in frame):
        return None
    if view.kind == "ranking":
        return _ranking(view, frame)
    panels = dict(iter(frame.groupby(view.panel, sort=False, dropna=False)))
    if view.kind == "spectra":
        return _spectra(view, panels)
    points = {name: points_of(view, runs) for name, runs in panels.items()}
    points = {name: found for name, found in points.items() if not found.empty}
    least = SATURATED if view.y in ACCURACIES else float("inf")
    shown = {name: found for name, found in points.items() if found["low"].min() < least}
    saturated = [name for name in points if name not in shown]
    if not shown:
        return None
    every = pd.concat(shown.values())
    series = list(every["series"].unique())
    if len(series) > MAX_SERIES:
        raise ValueError(f"{view.title}: got {len(series)} series, expected at most {MAX_SERIES}")
    figure, axes = _panels(len(shown), (3.3, 3.0))
    for panel, (name, found) in zip(axes, shown.items(), strict=True):
        _lines(panel, view, found, series)
        panel.set_title(_title(view.panel, name), fontsize=10.5)
    _legend(figure, axes)
    note = "Line: mean over seeds; band: minimum to maximum."
    if view.y == "tokens_per_s":
        note = "Line: median; band: quartiles of the samples."
    if saturated:
        note += f" Not shown, every run at least {SATURATED}: {', '.join(map(text_of, saturated))}."
    return Drawn(figure, note, (int(every["n"].min()), int(every["n"].max())))


def points_of(view: Figure, frame: pd.DataFrame) -> pd.DataFrame:
    """The points of a panel: series, x, mean, low, high and n, at each x with the setting chosen on validation data."""
    series = list(view.series)
    if view.x == "test length":
        frame, by = by_length(choose(frame, series, view.over, view.y)), [*series, "test length"]
    elif view.x in frame:
        by = [*series, *(("matched_on", "size") if view.x in COSTS else (view.x,))]
        frame = choose(frame.dropna(subset=view.x), by, view.over, view.y)
    if frame.empty or view.x not in frame:
        return pd.DataFrame()
    return pd.DataFrame(
        {"series": _label(view.series, key), "x": runs[view.x].mean(), **Summary.of(runs, view.y)._asdict()}
        for key, runs in frame.groupby(by, dropna=False, sort=False)
    )


def _label(labels: tuple[str, ...], values: tuple[Any, ...]) -> str:
    named = zip((label.replace("_", " ") for label in labels), values, strict=False)
    return ", ".join(str(value) if isinstance(value, str) else f"{key} {value:g}" for key, value in named)


def text_of(name: object) -> str:
    """Text as a figure shows it: one line, and dollars are no mathematics."""
    return visible(name).replace("$", r"\$")


def _title(label: str, name: Any) -> str:
    return text_of(name) if isinstance(name, str) else f"{label.replace('_', ' ')} = {name:g}"


def _panels(count: int, size: tuple[float, float]) -> tuple[Drawing, list[Axes]]:
    columns = 3 if count > 4 and count % 4 and count % 3 == 0 else min(4, count)
    return new_panels(count, columns, size, margin=(0.6, 0.9))


def _style(view: Figure, label: str, series: list[str]) -> dict[str, Any]:
    if view.series[0] in ("model", "layer"):
        look = look_of(label.partition(", m ")[0])
        alike = [one for one in series if look_of(one.partition(", m ")[0]) == look]
        line = ("-", "--", ":", "-.")[alike.index(label) % 4]
        return {"color": look.color, "marker": look.marker, "linestyle": line}
    place = series.index(label)
    return {"color": CYCLE[place % len(CYCLE)], "marker": "os^DvPX*"[place % 8], "linestyle": "-"}


def _lines(axes: Axes, view: Figure, points: pd.DataFrame, series: list[str]) -> None:
    for label, found in points.groupby("series", sort=False):
        found = found.sort_values("x")
        columns = (found[name] for name in ("x", "mean", "low", "high"))
        style = _style(view, str(label), series)
        draw_line(axes, *columns, **style, markersize=5, linewidth=1.7, label=text_of(label))
    if view.log_x:
        axes.set_xscale("log", base=2 if "length" in view.x else 10)
        axes.xaxis.set_major_formatter(lambda x, place: short(x))
    if view.x == "m" or "length" in view.x:  # few values, each of which is told
        ticks = sorted(points["x"].unique())
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks], fontsize=8 if len(ticks) > 5 else None)
        axes.minorticks_off()
    if view.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda y, place: short(y))
    elif view.y in ACCURACIES:
        lowest = points["low"].min()
        axes.set_ylim(0 if lowest < 0.5 else max(0.0, lowest - 0.1 * (1 - lowest) - 0.002), None)
        axes.set_ylim(top=1 + 0.03 * (1 - axes.get_ylim()[0]))
    axes.set(xlabel=_axis(view.x), ylabel=_axis(view.y))


def short(value: float) -> str:
    """ "64", "10k", "2.5M": a number on an axis."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _axis(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _legend(figure: Drawing, axes: list[Axes]) -> None:
    handles: dict[str, Any] = {}
    for panel in axes:
        found, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    longest = max(map(len, handles), default=1)
    letters = 0.7 + 0.075 * longest  # inches of a line and a label
    columns = max(1, min(4, int(figure.get_figwidth() / letters)))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=8.5,
                  handlelength=3)  # fmt: skip


def _spectra(view: Figure, panels: Mapping[Any, pd.DataFrame]) -> Drawn | None:
    """The eigenvalues of the chosen learning rate's runs, all seeds, inside the unit circle."""
    chosen = {
        name: choose(runs, (), view.over, view.y).dropna(subset="eigenvalues")
        for name, runs in panels.items()
    }
    chosen = {name: runs for name, runs in chosen.items() if len(runs)}
    if not chosen:
        return None
    figure, axes = _panels(len(chosen), (2.6, 2.6))
    for panel, (name, runs) in zip(axes, chosen.items(), strict=True):
        points = pd.DataFrame(runs["eigenvalues"].explode().dropna().tolist(), columns=["real", "imaginary"])
        draw_eigenvalues(panel, points["real"], points["imaginary"], look_of(str(name)).color)
        panel.set_title(text_of(name), fontsize=10.5)
    counts = [len(runs) for runs in chosen.values()]
    return Drawn(figure, "Eigenvalues of all seeds, in the unit circle.", (min(counts), max(counts)))


class Entry(NamedTuple):
    """A line of a ranking."""

    label: str
    mean: float
    low: float
    high: float
    n: int
    published: bool = False


def entries_of(view: Figure, frame: pd.DataFrame) -> list[Entry]:
    """The lines, the best last. A model that was not run on every task has none: its mean would be another number."""
    wanted = view.where.get(view.across)
    tasks = len(wanted) if isinstance(wanted, list) else frame[view.across].nunique()
    entries = [
        Entry(f"{name} (published)", mean, mean - deviation, min(1.0, mean + deviation), 1, True)
        for name, (mean, deviation) in view.published.items()
    ]
    chosen = choose(frame, (*view.series, view.across), view.over, view.y)
    for name, runs in chosen.groupby(list(view.series), sort=False):
        one = average(runs, (view.across,), view.y, tasks)
        if one is not None:
            entries.append(Entry(", ".join(map(str, name)), one.mean, *one.interval, one.n))
    return sorted(entries, key=lambda one: one.mean)


def _ranking(view: Figure, frame: pd.DataFrame) -> Drawn | None:
    """A bar for every entry, a line for its interval."""
    entries = entries_of(view, frame)
    mine = [one for one in entries if not one.published]
    if not mine:
        return None
    figure = new_figure(7.2, 1.2 + 0.24 * len(entries))
    axes = figure.subplots()
    for height, one in enumerate(entries):
        color = PUBLISHED if one.published else look_of(one.label).color
        axes.barh(height, one.mean, color=color, alpha=0.35 if one.published else 0.85, height=0.72)
        for color, width in (("white", 3.0), ("#222222", 1.4)):  # seen on dark bars too
            axes.hlines(height, one.low, one.high, color=color, linewidth=width)
    axes.set_yticks(range(len(entries)), [text_of(one.label) for one in entries], fontsize=8.5)
    several = frame[view.across].nunique() > 1
    axes.set_xlabel(_axis(view.y) + (f", mean over the {view.across}s" if several else ""))
    axes.set_xlim(0, 1.0 if view.y in ACCURACIES else None)
    axes.xaxis.set_major_formatter(lambda x, place: short(x))
    axes.grid(visible=False, axis="y")
    note = (
        "Bar: mean; line: 95 % bootstrap interval over seeds."
        if view.y in ACCURACIES
        else "Bar: median; line: quartiles."
    )
    if view.published:
        note += " Grey: published by others, with the deviation where it is given."
    return Drawn(figure, note, (min(one.n for one in mine), max(one.n for one in mine)))
