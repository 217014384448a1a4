"""Metrics as curves: read line by line and thinned, so that a long run takes no more room than a short one."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

POINTS = 1000
"""A curve is thinned to fewer than twice as many points: more than a figure can show."""

SPLIT = "validation"
"""The split whose evaluations are drawn."""


class Curve(NamedTuple):
    """Steps and values of one metric of one run, in the order of the file."""

    steps: array[int]
    values: array[float]


class Thinned:
    """A curve under construction: every 2^k-th point, with k as small as `POINTS` allows, and the last one.

    The strides of two runs divide each other, so that runs of different lengths still share steps.
    """

    def __init__(self) -> None:
        self._steps, self._values = array("q"), array("d")
        self._stride, self._seen = 1, 0
        self._last: tuple[int, float] | None = None

    def add(self, step: int, value: float) -> None:
        """The next point. TypeError or OverflowError for what is no number."""
        if self._seen % self._stride == 0:
            self._steps.append(step)
            self._values.append(value)
            if len(self._steps) >= 2 * POINTS:
                self._steps, self._values, self._stride = (
                    self._steps[::2],
                    self._values[::2],
                    2 * self._stride,
                )
        self._seen += 1
        self._last = step, value

    def curve(self) -> Curve:
        """What is kept, with the last point."""
        curve = Curve(self._steps[:], self._values[:])
        if self._last is not None and self._last[0] != curve.steps[-1]:
            curve.steps.append(self._last[0])
            curve.values.append(float(self._last[1]))
        return curve


class Metrics(NamedTuple):
    """What a report takes from metrics.jsonl: the last step, and the curves that it draws."""

    last_step: int
    curves: dict[tuple[str, str], Curve]


DRAWN = {"train": "loss", "eval": "accuracy"}
"""The value that is drawn of each kind of line."""


def read_metrics(path: Path) -> Metrics:
    """The curves of metrics.jsonl, less a last line that is still being written.

    OSError for a file that cannot be read, ValueError naming the file, the line and what is wrong with it.
    """
    with path.open("rb") as file:
        return _metrics(path, file)


def _metrics(path: Path, lines: Iterable[bytes]) -> Metrics:
    thinned = {(kind, value): Thinned() for kind, value in DRAWN.items()}
    last_step, damaged, decode = 0, None, json.JSONDecoder().decode
    for number, line in enumerate(lines, start=1):
        if damaged is not None:
            raise ValueError(damaged)
        try:
            entry = decode(line.decode())  # `json.loads` of bytes takes twice as long
        except (ValueError, RecursionError):
            damaged = f"{path} line {number} is not JSON"  # a run that goes on may be in the middle of its last line
            continue
        if not isinstance(entry, dict) or not {"kind", "step"} <= entry.keys():
            raise ValueError(f'{path} line {number} is not an object with "kind" and "step"')
        try:
            last_step = max(last_step, _add(thinned, entry))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{path} line {number} is not a line of metrics: {error}") from None
    return Metrics(last_step, {which: one.curve() for which, one in thinned.items()})


def _add(thinned: dict[tuple[str, str], Thinned], entry: dict[str, Any]) -> int:
    """Put a line into the curve that it belongs to, if there is one; its step."""
    kind, step = entry["kind"], entry["step"]
    if type(step) is not int:
        raise TypeError(f"step: got {step!r}, expected a whole number")
    name = DRAWN.get(kind) if isinstance(kind, str) else None
    if name is not None and entry.get("split", SPLIT) == SPLIT:
        value = entry.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            thinned[kind, name].add(step, value)
        elif value is not None:
            raise TypeError(f"{name}: got {value!r}, expected a number or null")
    return step
