"""Tables of an experiment in Markdown: settings chosen on validation data, range and n in every cell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd
from statemix_research.paper.experiment import Table
from statemix_research.paper.selection import Summary, choose, matching, summaries, within_time

from statemix.text import visible

NONE = "–"

PREFIXED = ("m", "length", "transition_bias", "depth")
"""Labels whose values mean nothing without their name."""


_MARKS = re.compile(r"[\\`*\[|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What means something inside a line, an underscore inside a word aside."""


def plain(text: object) -> str:
    """`text` as one line of Markdown that shows it, in a table too: nothing in it is markup, HTML or a line break."""
    line = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", line)


def code(text: object) -> str:
    """`text` in one line of fixed width."""
    line = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table; its cells are Markdown."""
    rows = [list(columns), ["---"] * len(columns), *map(list, lines)]
    return [f"| {' | '.join(row)} |" for row in rows]


def by_length(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each test length of every run: its "test length" and accuracy."""
    if "accuracies" not in frame:
        return frame.iloc[:0]
    frame = frame[frame["accuracies"].map(bool)]
    if frame.empty:
        return frame
    lengths, scores = (frame["accuracies"].map(list), frame["accuracies"].map(lambda one: list(one.values())))
    long = frame.assign(accuracy=scores, **{"test length": lengths})
    long = long.explode(["test length", "accuracy"], ignore_index=True)
    long = long.astype({"test length": int, "accuracy": float})
    long.loc[long["ended"] == "diverged", "accuracy"] = 0.0
    return long


def table(view: Table, frame: pd.DataFrame) -> list[str]:
    """The lines of a table, none when no run has the value."""
    frame = matching(frame, view.where)
    columns, over = list(view.columns), list(view.over)
    if view.time_of:
        frame = within_time(frame, view.time_of)
    if columns == ["test length"]:
        frame = by_length(choose(frame, view.rows, over, view.value))
    else:
        frame = choose(frame, (*view.rows, *columns), over, view.value)
    cells = summaries(frame, (*view.rows, *columns), view.value)
    if not cells:
        return []
    split = len(view.rows)
    rows = dict.fromkeys(key[:split] for key in cells)
    heads = ordered([key[split:] for key in cells])
    lines = []
    for row in rows:
        found = [cells.get((*row, *head)) for head in heads]
        mean = [_mean_of(found, view.where.get(columns[0]))] if view.mean else []
        lines.append([*map(word, row), *(NONE if one is None else str(one) for one in found), *mean])
    named = [", ".join(map(_head, columns, head)) for head in heads]
    return markdown(
        [*(name.replace("_", " ") for name in view.rows), *named, *(["mean"] if view.mean else [])], lines
    )


def _mean_of(found: Sequence[Summary | None], wanted: Any) -> str:
    """The mean over all columns; a line without one of them has none: its mean would be another number."""
    if None in found or (isinstance(wanted, list) and len(found) < len(wanted)):
        return NONE
    return f"{sum(one.mean for one in found if one is not None) / len(found):.3f}"


def ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, others as they come."""
    each = list(dict.fromkeys(values))
    try:
        return sorted(each) if not any(isinstance(part, str) for value in each for part in value) else each
    except TypeError:
        return each


def _head(label: str, value: Any) -> str:
    return f"{label.replace('_', ' ')} = {word(value)}" if label in PREFIXED else word(value)


def word(value: Any) -> str:
    """A label as a table shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    return f"{value:g}" if isinstance(value, float) else plain(value)


def to_csv(frame: pd.DataFrame) -> str:
    """Every run, a line each, without eigenvalues and configurations; a column for each test length."""
    columns = [
        "task", "panel", "model", "m", "matched_on", "size", "normalization", "transition_bias", "depth", "length",
        "blocks", "lr", "weight_decay", "seed", "ended", "accuracy", "validation", "train_accuracy", "best_accuracy",
        "step", "parameters", "mixer_parameters", "state_size", "flops_per_step", "flops_per_token", "seconds",
        "tokens_per_s", "milliseconds_per_step", "timed_on", "negative", "complex", "left_at_start",
        "forgotten_at_start", "silent_at_start", "left", "forgotten", "silent", "hardware", "torch", "date", "key",
    ]  # fmt: skip
    out = frame[[name for name in columns if name in frame]].dropna(axis="columns", how="all")
    if "ms" in frame:
        times = frame["ms"].map(lambda ms: ms if isinstance(ms, dict) else {})
        out = out.join(times.apply(pd.Series).add_prefix("ms_"))
    if "accuracies" in frame:
        scores = pd.DataFrame(list(frame["accuracies"]), index=frame.index)
        scores = scores[sorted(scores, key=int)] if len(scores.columns) > 1 else scores.iloc[:, :0]
        out = out.join(scores.add_prefix("accuracy_at_"))
    for name in out.select_dtypes("float"):
        whole = out[name].dropna()
        if name not in ("lr", "weight_decay", "transition_bias") and (whole == whole.round()).all():
            out[name] = out[name].astype("Int64")
    return out.to_csv(index=False, float_format="%.5g", lineterminator="\n")
