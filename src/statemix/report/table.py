"""The table of a report: a row per configuration, the mean over its seeds and their range, n shown."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from statemix.analysis.accounting import flops_per_token, mixer_parameters, mixers, parameters, state_size
from statemix.analysis.statistics import Spread, spread
from statemix.report.groups import Group
from statemix.report.labels import SIZES
from statemix.report.records import Record
from statemix.text import visible
from statemix.training import Config, build_model, build_task

COSTS: dict[str, tuple[str, Callable[[nn.Module, int], int]]] = {
    "state_size": ("state size", state_size),
    "flops_per_token": (
        "FLOPs per token",
        lambda model, length: flops_per_token(model, torch.zeros(1, length, dtype=torch.int64)),
    ),
    "mixer_parameters": ("mixer parameters", lambda model, length: mixer_parameters(model)),
    "parameters": ("parameters", lambda model, length: parameters(model)),
}
"""What a model costs: the key in a summary, the column, and how it is counted for a length when no summary says."""


RESULTS = ("configuration", "task", "n", "best validation", "status")
"""The columns of the table of results, besides the accuracies by length; the others are sizes and costs."""

SHOWN_LENGTHS = 6
"""Test lengths that the page has room for; runs.csv has them all."""


class Sample(NamedTuple):
    """Accuracies of several seeds: mean and deviation, the lowest and the highest (NaN for none)."""

    spread: Spread
    low: float
    high: float

    def __str__(self) -> str:
        """ "0.933 (0.800–1.000)"; of one value the value, of none a dash."""
        if not self.spread.n:
            return "–"
        mean = fraction(self.spread.mean)
        return f"{mean} ({fraction(self.low)}–{fraction(self.high)})" if self.spread.n > 1 else mean


def sample(values: Iterable[float]) -> Sample:
    """Mean, deviation and range of the values."""
    numbers = list(values)
    return Sample(spread(numbers), min(numbers, default=math.nan), max(numbers, default=math.nan))


def fraction(value: float) -> str:
    """Three decimals; what is not quite 0 or 1 is not rounded to it."""
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return ">0.999"
    return "<0.001" if text == "0.000" and value > 0 else text


def lengths_of(groups: list[Group]) -> list[int]:
    """Every tested length."""
    return sorted({length for group in groups for run in group.runs for length in run.accuracy()})


def accuracy_at(group: Group, length: int) -> Sample:
    """The test accuracies of a group's runs at one length."""
    tested = (run.accuracy() for run in group.runs)
    return sample(accuracy[length] for accuracy in tested if length in accuracy)


def row(group: Group, lengths: list[int]) -> dict[str, Any]:
    """What the table says of one configuration; accuracies are `Sample`s."""
    config, runs = group.config, group.runs
    best = (run.best_validation() for run in runs)
    seconds = (run.seconds() for run in runs)
    return {
        "configuration": group.label,
        "task": config["task"]["name"],
        "m": group.m,
        "N": _blocks(config),
        "n": len(runs),
        **{f"accuracy at {length}": accuracy_at(group, length) for length in lengths},
        **_costs(group),
        "best validation": sample(value for value in best if value is not None),
        "steps": max(run.step for run in runs),
        "seconds": spread(value for value in seconds if value is not None),
        "status": statuses(runs),
    }


def tables(rows: list[dict[str, Any]], lengths: list[int]) -> dict[str, list[str]]:
    """The columns of the page's tables by their headings: the results, then sizes and costs."""
    accuracies = [f"accuracy at {length}" for length in lengths]
    shown = [f"accuracy at {length}" for length in some_of(lengths)]
    task = ["task"] if len({cells["task"] for cells in rows}) > 1 else []
    costs = [column for column in rows[0] if column not in {*RESULTS, *accuracies}]
    return {
        "Results": ["configuration", *task, "n", *shown, "best validation", "status"],
        "Sizes and costs": ["configuration", *costs],
    }


def some_of(lengths: list[int]) -> list[int]:
    """At most `SHOWN_LENGTHS` of the lengths, the first and the last among them."""
    last = len(lengths) - 1
    if last < SHOWN_LENGTHS:
        return lengths
    return [lengths[round(k * last / (SHOWN_LENGTHS - 1))] for k in range(SHOWN_LENGTHS)]


def statuses(runs: Iterable[Record]) -> str:
    """ "2 finished, 1 diverged"."""
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {visible(status).replace('_', ' ')}" for status, count in counts.items())


def _costs(group: Group) -> dict[str, int]:
    """The costs of a group's model, from a summary or, while all its runs go on, from the model itself."""
    told = next((run.summary for run in group.runs if COSTS.keys() <= run.summary.keys()), None)
    if told is not None:
        return {column: told[key] for key, (column, _) in COSTS.items()}
    parts = {name: group.config[name] for name in ("task", "mixer", "model")}
    return dict(_counted(json.dumps(parts, sort_keys=True)))


@functools.lru_cache(maxsize=256)
def _counted(parts: str) -> dict[str, int]:
    """The costs of a model, by the JSON of its task, mixer and backbone."""
    config = json.loads(parts)
    model, length = _model(config), build_task(Config.from_dict(config)).input_length()
    return {column: count(model, length) for column, count in COSTS.values()}


def _model(config: dict[str, Any]) -> nn.Module:
    """A model to count on. Not on the meta device, whose first use takes longer than most models."""
    whole = Config.from_dict(config)
    return build_model(whole, build_task(whole))


def _blocks(config: dict[str, Any]) -> int | None:
    """N: as configured or, when it was left to the layer, as the layer chose it."""
    mixer = config["mixer"]
    if mixer["name"] not in SIZES:
        return None
    name = SIZES[mixer["name"]][1]
    if mixer.get(name) is not None:
        return int(mixer[name])
    return _chosen(
        json.dumps({part: config[part] for part in ("task", "mixer", "model")}, sort_keys=True), name
    )


@functools.lru_cache(maxsize=256)
def _chosen(parts: str, name: str) -> int:
    return int(getattr(mixers(_model(json.loads(parts)))[0], name))


def text(value: Any, n: int | None = None) -> str:
    """A cell as people read it; a sample of fewer than the row's n runs says of how many."""
    if value is None:
        return "–"
    if isinstance(value, Sample):
        count = value.spread.n
        if count in (0, n) or n is None:
            return str(value)
        return f"{value} (n = {count})" if count == 1 else f"{str(value)[:-1]}; n = {count})"
    if isinstance(value, Spread):
        return text(round(value.mean) if value.mean >= 100 else f"{value.mean:.3g}") if value.n else "–"
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else visible(value)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; accuracies take five columns: mean, deviation, n, lowest, highest, and times the first three."""
    plain = []
    for cells in rows:
        line: dict[str, Any] = {}
        for column, value in cells.items():
            told = value.spread if isinstance(value, Sample) else value
            if isinstance(told, Spread):
                line |= {column: told.mean, f"{column} sd": told.deviation, f"{column} n": told.n}
            else:
                line[column] = visible(told) if isinstance(told, str) else told
            if isinstance(value, Sample):
                line |= {f"{column} min": value.low, f"{column} max": value.high}
        plain.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return buffer.getvalue()
