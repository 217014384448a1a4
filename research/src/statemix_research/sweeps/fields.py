"""What may stand in a row, and in the files that a row is read from: for each name, which values."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from statemix.training import FINAL

STATUSES = ("finished", "diverged", "failed", "unfinished")
"""Statuses of exported rows."""

MAX_INTEGER = 2**63 - 1

SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Field(NamedTuple):
    """What is expected, in words, and whether a value is that."""

    expected: str
    fits: Callable[[Any], bool]


def is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether a value is a finite number from `low` to `high`; True and False are none."""
    if type(value) is int:
        return low <= value <= high and abs(value) <= MAX_INTEGER
    return isinstance(value, float) and math.isfinite(value) and low <= value <= high


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER


def is_text(value: Any) -> bool:
    """Whether a value is a string that UTF-8 can hold."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdecimal() and is_number(score, 0, 1) for key, score in value.items()
    )


def _is_times(value: Any) -> bool:
    return isinstance(value, dict) and "median" in value and all(is_number(ms, 0) for ms in value.values())


def _is_points(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 2 and all(map(is_number, one)) for one in value
    )


def _is_date(value: Any) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except (TypeError, ValueError):
        return False


def one_of(values: Iterable[str]) -> Field:
    """One of some words."""
    known = tuple(values)
    words = ", ".join(map(repr, known))
    return Field(f"one of {words}", lambda value: isinstance(value, str) and value in known)


def matching(expected: str, pattern: str) -> Field:
    """Text of a pattern."""
    form = re.compile(pattern)
    return Field(expected, lambda value: isinstance(value, str) and form.fullmatch(value) is not None)


def or_none(field: Field) -> Field:
    """The same, or null."""
    return Field(f"{field.expected}, or null", lambda value: value is None or field.fits(value))


COUNT = Field("a whole number from 0", _is_count)
NUMBER = Field("a finite number", is_number)
AMOUNT = Field("a finite number from 0", lambda value: is_number(value, 0))
SHARE = Field("a number from 0 to 1", lambda value: is_number(value, 0, 1))
TEXT = Field("text", is_text)
STRING = Field("text", lambda value: isinstance(value, str))
"""Of any characters, those of file names that are not UTF-8 among them."""
SCORES = Field("an object of numbers from 0 to 1 by length", _is_scores)
TIMES = Field('an object of numbers from 0, "median" among them', _is_times)
POINTS = Field("a list of [real, imaginary]", _is_points)
OBJECT = Field("an object", lambda value: isinstance(value, dict))
ENDED = one_of(FINAL)
LABEL = Field("text or a finite number, or null", lambda x: x is None or is_text(x) or is_number(x))

SUMMARY: dict[str, Field] = {
    "step": COUNT, "parameters": COUNT, "mixer_parameters": COUNT, "state_size": COUNT, "flops_per_step": COUNT,
    "flops_per_token": COUNT, "best_accuracy": or_none(SHARE), "seconds": AMOUNT, "device": TEXT, "torch": TEXT,
    "capture": TEXT, "tokens_per_s": AMOUNT, "ms": TIMES,
}  # fmt: skip
"""What a row takes from a summary."""

PROBED: dict[str, Field] = {
    "negative": SHARE, "complex": SHARE, "eigenvalues": POINTS,
    "left_at_start": AMOUNT, "forgotten_at_start": SHARE, "silent_at_start": SHARE,
    "left": AMOUNT, "forgotten": SHARE, "silent": SHARE,
    "milliseconds_per_step": AMOUNT, "timed_on": TEXT,
}  # fmt: skip
"""What a row takes from probes."""

RESULTS: dict[str, Field] = {
    "status": one_of(STATUSES), "error": or_none(TEXT), **SUMMARY, "ended": ENDED, "accuracies": SCORES,
    "accuracy": or_none(SHARE), "mean_accuracy": or_none(SHARE), "train_loss": or_none(NUMBER),
    "train_accuracy": or_none(SHARE), "validation": or_none(SHARE), "validation_loss": or_none(NUMBER),
    "hardware": TEXT, "date": Field("a date such as 2026-01-31", _is_date), **PROBED,
}  # fmt: skip
"""Everything in a row that is neither its key nor a label nor the configuration."""


def wrong(name: str, value: Any, field: Field) -> str | None:
    """ "accuracy: got 1.5, expected a number from 0 to 1", or None for a value that fits."""
    if field.fits(value):
        return None
    shown = repr(value)
    return f"{name}: got {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}, expected {field.expected}"


def first_wrong(
    content: Mapping[str, Any], fields: Mapping[str, Field], needed: Iterable[str] = ()
) -> str | None:
    """What is wrong with the first entry that does not fit, or is `needed` and missing; None if nothing is."""
    for name in needed:
        if name not in content:
            return f"{name}: missing, expected {fields[name].expected}"
    told = (wrong(name, value, fields[name]) for name, value in content.items() if name in fields)
    return next((text for text in told if text is not None), None)
