"""The tables of a report: a row per configuration, the mean over its seeds with their range, n shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from statemix.analysis import Spread, spread
from statemix.report.runs import SIZES, Group, Record
from statemix.text import visible

COSTS = {
    "state size": "state_size",
    "FLOPs per token": "flops_per_token",
    "mixer parameters": "mixer_parameters",
    "parameters": "parameters",
}
"""What a model costs: the column, and the key in a summary."""

SHOWN_LENGTHS = 6
"""Test lengths with a column on the page; runs.csv has them all."""

SPREAD_COLUMNS = ("", " sd", " n", " min", " max")
"""What runs.csv adds to the name of a column for the first fields of a `Spread`."""

Row = dict[str, Any]


def tested_lengths(groups: list[Group]) -> list[int]:
    """Every tested length."""
    return sorted({length for group in groups for run in group.runs for length in run.accuracy})


def make_rows(groups: list[Group]) -> list[Row]:
    """A row per configuration: texts, whole numbers, and `Spread`s of accuracies and seconds; None: not known."""
    lengths = tested_lengths(groups)
    return [_row(group, lengths) for group in groups]


def _row(group: Group, lengths: list[int]) -> Row:
    config, runs = group.config, group.runs
    summary: Row = next((run.summary for run in runs if "state_size" in run.summary), {})
    _, size = SIZES.get(config["mixer"]["name"], ("", ""))
    m, state = config["mixer"].get(size), summary.get("state_size")
    return {
        "configuration": group.label,
        "task": config["task"]["name"],
        "m": m,
        "N": state // (config["model"]["depth"] * m) if m and state else None,
        "n": len(runs),
        **{f"accuracy at {length}": group.accuracy_at(length) for length in lengths},
        **{column: summary.get(key) for column, key in COSTS.items()},
        "best validation": spread(run.best_validation for run in runs if run.best_validation is not None),
        "steps": max(run.step for run in runs),
        "seconds": spread(run.seconds for run in runs if run.seconds is not None),
        "status": statuses(runs),
    }


def statuses(runs: Iterable[Record]) -> str:
    """ "2 finished, 1 diverged"."""
    counts = Counter(run.status for run in runs)
    return ", ".join(f"{count} {visible(status).replace('_', ' ')}" for status, count in counts.items())


def page_columns(rows: list[Row], lengths: list[int]) -> dict[str, list[str]]:
    """The columns of the page's tables by their headings: the results, then sizes and costs."""
    shown = [f"accuracy at {length}" for length in some_of(lengths)]
    task = ["task"] if len({row["task"] for row in rows}) > 1 else []
    return {
        "Results": ["configuration", *task, "n", *shown, "best validation", "status"],
        "Sizes and costs": ["configuration", "m", "N", *COSTS, "steps", "seconds"],
    }


def some_of(lengths: list[int]) -> list[int]:
    """At most `SHOWN_LENGTHS` of the lengths, the first and the last among them."""
    last = len(lengths) - 1
    if last < SHOWN_LENGTHS:
        return lengths
    return [lengths[round(k * last / (SHOWN_LENGTHS - 1))] for k in range(SHOWN_LENGTHS)]


def fraction(value: float) -> str:
    """Three decimals; what is not quite 0 or 1 is not rounded to it."""
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return ">0.999"
    return "<0.001" if text == "0.000" and value > 0 else text


def score(value: Spread, n: int | None = None) -> str:
    """ "0.933 (0.800–1.000)": mean, lowest and highest; with the number of values unless it is n."""
    if not value.n:
        return "–"
    span = f"{fraction(value.low)}–{fraction(value.high)}" if value.n > 1 else ""
    notes = ", ".join(filter(None, [span, f"n = {value.n}" if value.n != n else ""]))
    return f"{fraction(value.mean)} ({notes})" if notes else fraction(value.mean)


def cell(column: str, value: Any, n: int) -> str:
    """A cell as people read it; n: the runs of its row."""
    if column == "seconds" and value.n:
        value = round(value.mean) if value.mean >= 100 else f"{value.mean:.3g}"
    if isinstance(value, Spread):
        return score(value, n)
    if value is None:
        return "–"
    return f"{value:,}".replace(",", "\u2009") if isinstance(value, int) else visible(value)


def to_csv(rows: list[Row]) -> str:
    """The rows as CSV; a spread takes five columns: mean, deviation (sd), n, lowest and highest."""
    import pandas

    table: list[Row] = []
    for row in rows:
        table.append({})
        for column, value in row.items():
            if isinstance(value, Spread):
                table[-1].update(zip((column + name for name in SPREAD_COLUMNS), value, strict=True))
            else:
                table[-1][column] = visible(value) if isinstance(value, str) else value
    return pandas.DataFrame(table, dtype=object).to_csv(index=False, lineterminator="\n")  # type: ignore[no-any-return]
