"""Runs as a table, settings chosen on validation data, and statistics over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from statemix_research.sweeps.models import MODEL_SPECS

ACCURACIES = ("accuracy", "mean_accuracy", "validation")
"""Values that are 0 for a run that diverged."""

MODEL_ORDER = {spec.label: place for place, spec in enumerate(MODEL_SPECS.values())}

RESAMPLES = 10_000

Columns = Sequence[str]


def frame_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows of runs that came to their end, models in registry order; a diverged run's accuracies are 0."""
    frame = pd.DataFrame([row for row in rows if "ended" in row])
    if frame.empty:
        return frame
    for name in ACCURACIES:
        if name in frame:
            frame[name] = frame[name].astype(float)
            frame.loc[frame["ended"] == "diverged", name] = 0.0
    order = frame["model"].map(MODEL_ORDER).fillna(len(MODEL_ORDER))
    return frame.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def with_losses(frame: pd.DataFrame, path: Path, value: str) -> pd.DataFrame:
    """The rows, and behind them those of a file that `losses` wrote, whose losses are their `value`."""
    if not path.is_file():
        return frame
    return pd.concat(
        [frame, pd.read_json(path, lines=True).rename(columns={"loss": value})], ignore_index=True
    )


def matching(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.DataFrame:
    """The runs whose labels have the given values; a list or tuple of values admits each of them."""
    for key, value in where.items():
        if key not in frame:
            return frame.iloc[:0]
        frame = frame[frame[key].isin(value if isinstance(value, (list, tuple)) else [value])]
    return frame


def choose(frame: pd.DataFrame, by: Columns, over: Columns, value: str) -> pd.DataFrame:
    """The runs of the setting, for each group `by`, with the best mean validation accuracy.

    Test data take no part in the choice. A setting with fewer runs than another is not chosen: in an unfinished sweep
    those runs end first that stop early, because they succeeded. Of equals the first in order is taken.

    Args:
        frame: As `frame_of` makes it.
        by: Labels that tell the groups apart.
        over: Labels that make a setting.
        value: Only runs with this value count.
    """
    if value not in frame:
        return frame.iloc[:0]
    frame = frame[frame[value].notna()]
    over = [key for key in over if key in frame and key not in by]
    if frame.empty or not over:
        return frame
    frame = frame.assign(_all=0)
    by = ["_all", *by]
    groups = frame.groupby([*by, *over], dropna=False, sort=False)["validation"]
    settings = groups.agg(_runs="size", _score="mean").reset_index().sort_values(over, kind="stable")
    most = settings.groupby(by, dropna=False)["_runs"].transform("max")
    best = settings[settings["_runs"] == most].sort_values("_score", ascending=False, kind="stable")
    best = best.drop_duplicates(by)[[*by, *over]]
    return (
        frame.reset_index().merge(best, on=[*by, *over]).sort_values("index").drop(columns=["_all", "index"])
    )


def readable(value: float) -> str:
    """ "0.868", "−0.012", "27.6k", "13.9M": a number with three digits."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}".replace("-", "−")
    return f"{value:.3f}".replace("-", "−")


class Summary(NamedTuple):
    """Several runs of one setting: mean, minimum, maximum, number of runs, and how many of them diverged."""

    mean: float
    low: float
    high: float
    n: int
    diverged: int = 0

    @classmethod
    def of(cls, runs: pd.DataFrame, value: str) -> Summary:
        """Of the runs' values; a timing has the quartiles of its samples as bounds."""
        values, diverged = runs[value].astype(float), int((runs["ended"] == "diverged").sum())
        low, high, n = values.min(), values.max(), len(values)
        if "ms" in runs and n == 1:
            ms = runs["ms"].iloc[0]
            low, high = (high * ms["median"] / ms[f"{side}_quartile"] for side in ("upper", "lower"))
            n = int(ms.get("samples", 1))
        return cls(float(values.mean()), float(low), float(high), n, diverged)

    def __str__(self) -> str:
        """ "0.868 (0.742–0.951; 5)": mean, range and n; large numbers in thousands and millions."""
        if not self.n:
            return "–"
        mean, low, high = map(readable, self[:3])
        spread = f"{low}–{high}; " if self.n > 1 else ""
        diverged = f", {self.diverged} diverged" if self.diverged else ""
        return f"{mean} ({spread}{self.n}{diverged})"


NOTHING = Summary(float("nan"), float("nan"), float("nan"), 0)


def summaries(frame: pd.DataFrame, by: Columns, value: str) -> dict[tuple[Any, ...], Summary]:
    """A summary for each group of runs, in order of appearance."""
    if frame.empty:
        return {}
    groups = frame.groupby(list(by), dropna=False, sort=False)
    return {key: Summary.of(runs, value) for key, runs in groups}


def bootstrap(groups: Iterable[Iterable[float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Resampled means: seeds are drawn with replacement within each group, and the groups' means averaged.

    The generator's seed is fixed, so that a page comes out the same every time.
    """
    generator = np.random.default_rng(0)
    arrays = (np.asarray(list(group), dtype=float) for group in groups)
    return np.mean([generator.choice(one, (RESAMPLES, len(one))).mean(1) for one in arrays], axis=0)


class Average(NamedTuple):
    """The mean of some runs' means over tasks, resampled means, and the fewest runs of a task."""

    mean: float
    draws: Any
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the draws; of a timing, its quartiles."""
        ends = [0.0, 1.0] if len(self.draws) == 2 else [0.025, 0.975]
        low, high = np.quantile(self.draws, ends)
        return float(low), float(high)

    def less(self, other: Average) -> Average:
        """The difference of two independent averages."""
        return Average(self.mean - other.mean, self.draws - other.draws[::-1], min(self.n, other.n))


def average(runs: pd.DataFrame, across: Columns, value: str, groups: int) -> Average | None:
    """The average over the groups `across`; None with fewer groups than `groups`: it would be another number."""
    parts = [part for _, part in runs.groupby(list(across), sort=False)] if across else [runs]
    if runs.empty or len(parts) < groups:
        return None
    if value == "tokens_per_s":
        timing = Summary.of(runs, value)
        return Average(timing.mean, np.array([timing.low, timing.high]), timing.n)
    values = [list(part[value].astype(float)) for part in parts]
    return Average(float(np.mean([np.mean(one) for one in values])), bootstrap(values), min(map(len, values)))


def within_time(frame: pd.DataFrame, reference: Mapping[str, Any], slack: float = 1.1) -> pd.DataFrame:
    """The runs whose step takes at most `slack` times as long as the reference's, on each task and the same device.

    Runs that differ in learning rate and seed alone share their step's time.
    """
    if "milliseconds_per_step" not in frame:
        return frame.iloc[:0]
    by = ["task", "model", "matched_on", "size"]
    timed = frame.dropna(subset="milliseconds_per_step")
    devices = matching(timed, reference).groupby("task")["timed_on"].first()
    timed = timed[timed["timed_on"] == timed["task"].map(devices)]
    limits = slack * matching(timed, reference).groupby("task")["milliseconds_per_step"].mean()
    costs = timed.groupby(by)["milliseconds_per_step"].mean().reset_index()
    near = costs[costs["milliseconds_per_step"] <= costs["task"].map(limits).astype(float)][by]
    return frame.reset_index().merge(near, on=by).sort_values("index").drop(columns="index")
