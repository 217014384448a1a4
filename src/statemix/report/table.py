"""The table of a report: a row per configuration, mean ± standard deviation over seeds, n shown."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from statemix.analysis.accounting import flops_per_step, mixer_parameters, mixers, parameters, state_size
from statemix.analysis.statistics import Spread, spread
from statemix.report.groups import SIZES, Group
from statemix.report.records import Record
from statemix.training.build import model_of, task_of
from statemix.training.config import Config

COSTS: dict[str, tuple[str, Callable[[nn.Module, int], int]]] = {
    "state_size": ("state size", state_size),
    "flops_per_step": ("FLOPs per step", flops_per_step),
    "mixer_parameters": ("mixer parameters", lambda model, length: mixer_parameters(model)),
    "parameters": ("parameters", lambda model, length: parameters(model)),
}
"""What a model costs: the key in a summary, the column, and how it is counted for a length when no summary says."""


def lengths_of(groups: list[Group]) -> list[int]:
    """Every tested length."""
    return sorted({length for group in groups for run in group.runs for length in run.accuracy()})


def row(group: Group, lengths: list[int]) -> dict[str, Any]:
    """What the table says of one configuration; accuracies are `Spread`s."""
    config, runs = group.config, group.runs
    return {
        "configuration": group.label,
        "task": config["task"]["name"],
        "m": group.m,
        "N": _blocks(config),
        "n": len(runs),
        **{f"accuracy at {length}": _spread_at(group, length) for length in lengths},
        **_costs(group),
        "best validation": spread(
            run.summary["best_accuracy"] for run in runs if run.summary.get("best_accuracy") is not None
        ),
        "steps": max(run.step for run in runs),
        "seconds": spread(run.summary["seconds"] for run in runs if "seconds" in run.summary),
        "status": statuses(runs),
    }


def statuses(runs: Iterable[Record]) -> str:
    """ "2 finished, 1 diverged"."""
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())


def _costs(group: Group) -> dict[str, int]:
    """The costs of a group's model, from a summary or, while all its runs go on, from the model itself."""
    told = next((run.summary for run in group.runs if COSTS.keys() <= run.summary.keys()), None)
    if told is not None:
        return {column: told[key] for key, (column, _) in COSTS.items()}
    model, length = _model(group.config), task_of(Config.from_dict(group.config)).length
    return {column: count(model, length) for column, count in COSTS.values()}


def _model(config: dict[str, Any]) -> nn.Module:
    whole = Config.from_dict(config)
    return model_of(whole, task_of(whole))


def _spread_at(group: Group, length: int) -> Spread:
    return spread(run.accuracy()[length] for run in group.runs if length in run.accuracy())


def _blocks(config: dict[str, Any]) -> int | None:
    """N: as configured or, when it was left to the layer, as the layer chose it."""
    mixer = config["mixer"]
    if mixer["name"] not in SIZES:
        return None
    name = SIZES[mixer["name"]][1]
    if mixer.get(name) is not None:
        return int(mixer[name])
    return int(getattr(mixers(_model(config))[0], name))


def text(value: Any, column: str = "", n: int | None = None) -> str:
    """A cell as people read it; a spread over fewer than the row's n runs says over how many."""
    if value is None:
        return "–"
    if isinstance(value, Spread):
        if column == "seconds":
            return f"{value.mean:.0f}" if value.n else "–"
        return str(value) if value.n in (0, n) or n is None else f"{value} (n = {value.n})"
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else str(value)


def to_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; a spread takes three columns: mean, deviation, n."""
    plain = []
    for cells in rows:
        line: dict[str, Any] = {}
        for column, value in cells.items():
            if isinstance(value, Spread):
                line |= {column: value.mean, f"{column} sd": value.deviation, f"{column} n": value.n}
            else:
                line[column] = value
        plain.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return buffer.getvalue()
