"""The table of a report: a row per configuration, mean ± standard deviation over seeds, n shown."""

from __future__ import annotations

import csv
import io
from typing import Any

from statemix.analysis.statistics import Spread, spread
from statemix.report.groups import SIZES, Group
from statemix.training.build import model_of, task_of
from statemix.training.config import Config


def lengths_of(groups: list[Group]) -> list[int]:
    """Every tested length."""
    return sorted({length for group in groups for run in group.runs for length in run.accuracy()})


def row(group: Group, lengths: list[int]) -> dict[str, Any]:
    """What the table says of one configuration; accuracies are `Spread`s."""
    config, runs = group.config, group.runs
    costs = next((run.summary for run in runs if "parameters" in run.summary), {})
    statuses: dict[str, int] = {}
    for run in runs:
        statuses[run.status] = statuses.get(run.status, 0) + 1
    return {
        "configuration": group.label,
        "task": config["task"]["name"],
        "m": group.m,
        "N": _blocks(config),
        "n": len(runs),
        **{f"accuracy at {length}": _spread_at(group, length) for length in lengths},
        "state size": costs.get("state_size"),
        "FLOPs per step": costs.get("flops_per_step"),
        "mixer parameters": costs.get("mixer_parameters"),
        "parameters": costs.get("parameters"),
        "best validation": spread(
            run.summary["best_accuracy"] for run in runs if run.summary.get("best_accuracy") is not None
        ),
        "steps": max((run.summary.get("step", 0) for run in runs), default=0),
        "seconds": spread(run.summary["seconds"] for run in runs if "seconds" in run.summary),
        "status": ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in statuses.items()),
    }


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
    whole = Config.from_dict(config)
    layer: Any = model_of(whole, task_of(whole)).layers[0]  # type: ignore[index, union-attr]
    return int(getattr(layer.mixer, name))


def text(value: Any, column: str = "") -> str:
    """A cell as people read it."""
    if value is None:
        return "–"
    if isinstance(value, Spread):
        if column == "seconds":
            return f"{value.mean:.0f}" if value.n else "–"
        return str(value)
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
