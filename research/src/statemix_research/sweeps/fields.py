"""What may stand in a row, and in the files that a row is read from: for each name, which values."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from statemix.training import FINAL

LARGEST = {int: 2**63 - 1, float: sys.float_info.max}

SHOWN = 60
"""Characters of a wrong value that an error shows."""


class Field(NamedTuple):
    """What is expected, in words, and whether a value is that."""

    expected: str
    fits: Callable[[Any], bool]


def _is_number(value: Any, low: float = -LARGEST[float], high: float = LARGEST[float]) -> bool:
    """Whether a value is a finite number from `low` to `high`; True and False are none."""
    return type(value) in LARGEST and abs(value) <= LARGEST[type(value)] and low <= value <= high


def _is_text(value: Any) -> bool:
    """Whether a value is a string that UTF-8 can hold."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isdecimal() and _is_number(score, 0, 1) for key, score in value.items()
    )


def _is_times(value: Any) -> bool:
    return isinstance(value, dict) and "median" in value and all(_is_number(ms, 0) for ms in value.values())


def _is_date(value: Any) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except (TypeError, ValueError):
        return False


def _list_of(expected: str, fits: Callable[[Any], bool]) -> Field:
    return Field(expected, lambda value: isinstance(value, list) and all(map(fits, value)))


def _pairs_of(expected: str, fits: Callable[[Any], bool]) -> Field:
    return _list_of(expected, lambda one: isinstance(one, list) and len(one) == 2 and all(map(fits, one)))


def one_of(*values: str) -> Field:
    """One of some words."""
    return Field(
        f"one of {', '.join(map(repr, values))}", lambda value: isinstance(value, str) and value in values
    )


def _matching(expected: str, pattern: str) -> Field:
    return Field(expected, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)))


def _or_none(field: Field) -> Field:
    return Field(f"{field.expected}, or null", lambda value: value is None or field.fits(value))


COUNT = Field("a whole number from 0", lambda value: type(value) is int and _is_number(value, 0))
NUMBER = Field("a finite number", _is_number)
AMOUNT = Field("a finite number from 0", lambda value: _is_number(value, 0))
SHARE = Field("a number from 0 to 1", lambda value: _is_number(value, 0, 1))
TEXT = Field("text", _is_text)
STRING = Field("text", lambda value: isinstance(value, str))
"""Of any characters, those of file names that are not UTF-8 among them."""
SCORES = Field("an object of numbers from 0 to 1 by length", _is_scores)
OBJECT = Field("an object", lambda value: isinstance(value, dict))
HARDWARE = Field("an object with a device", lambda x: isinstance(x, dict) and _is_text(x.get("device")))
LABEL = Field("text or a finite number, or null", lambda x: x is None or _is_text(x) or _is_number(x))
SKIPPED = _pairs_of("a list of [model, reason]", _is_text)

SUMMARY: dict[str, Field] = {
    "step": COUNT, "parameters": COUNT, "mixer_parameters": COUNT, "state_size": COUNT, "flops_per_step": COUNT,
    "flops_per_token": COUNT, "best_accuracy": _or_none(SHARE), "seconds": AMOUNT, "device": TEXT, "torch": TEXT,
    "capture": TEXT, "tokens_per_s": AMOUNT,
    "ms": Field('an object of numbers from 0, "median" among them', _is_times),
}  # fmt: skip
"""What a row takes from a summary."""

NEEDED = {
    "train": (
        "step", "device", "torch", "parameters", "mixer_parameters", "state_size", "best_accuracy", "seconds",
    ),
    "throughput": ("step", "device", "torch", "tokens_per_s", "ms"),
}  # fmt: skip
"""Those of them that a run which came to its end has, by the kind of job."""

PROBED: dict[str, Field] = {
    "negative": SHARE, "complex": SHARE, "eigenvalues": _pairs_of("a list of [real, imaginary]", _is_number),
    "left_at_start": AMOUNT, "forgotten_at_start": SHARE, "silent_at_start": SHARE,
    "left": AMOUNT, "forgotten": SHARE, "silent": SHARE,
    "milliseconds_per_step": AMOUNT, "timed_on": TEXT,
}  # fmt: skip
"""What a row takes from probes."""

CURVES = {
    "train_loss": ("train", "loss"), "train_accuracy": ("train", "accuracy"),
    "validation": ("validation", "accuracy"), "validation_loss": ("validation", "loss"),
}  # fmt: skip
"""What a row takes from the last lines of the curves: of which curve, which number."""

METRIC: dict[str, Field] = {
    "kind": one_of("train", "eval"), "step": COUNT, "split": TEXT, "length": COUNT, "loss": _or_none(NUMBER),
    "accuracy": _or_none(SHARE), "macro_accuracy": _or_none(SHARE), "lr": NUMBER,
}  # fmt: skip
"""What stands in a line of metrics."""

EVENT: dict[str, Field] = {
    "event": TEXT, "time": _matching("a time such as 2026-01-31T12:00:00+00:00", r"\d{4}-\d\d-\d\d.*"),
    "status": TEXT, "hardware": HARDWARE, "error": STRING, "traceback": STRING,
}  # fmt: skip
"""What stands in a line of a history."""

HEAD: dict[str, Field] = {
    "experiment": TEXT, "preset": TEXT, "settings": _list_of("a list of texts", _is_text), "cells": COUNT,
    "skipped": SKIPPED,
}  # fmt: skip
"""What stands in the first line of an exported file, beside the form."""

ROW: dict[str, Field] = {
    "key": _matching("16 hex digits", "[0-9a-f]{16}"), "config": OBJECT,
    "status": one_of("finished", "diverged", "failed", "unfinished"),
    "error": _or_none(TEXT), **SUMMARY, "ended": one_of(*FINAL), "accuracies": SCORES,
    "accuracy": _or_none(SHARE), "mean_accuracy": _or_none(SHARE), "train_loss": _or_none(NUMBER),
    "train_accuracy": _or_none(SHARE), "validation": _or_none(SHARE), "validation_loss": _or_none(NUMBER),
    "hardware": TEXT, "date": Field("a date such as 2026-01-31", _is_date), **PROBED,
}  # fmt: skip
"""What stands in every other line, beside the labels of the cell."""


def check_fields(content: Mapping[str, Any], fields: Mapping[str, Field], needed: Iterable[str] = ()) -> None:
    """ValueError for an entry that does not fit, "accuracy: got 1.5, expected a number from 0 to 1", or is missing."""
    for name in needed:
        if name not in content:
            raise ValueError(f"{name}: missing, expected {fields[name].expected}")
    for name, value in content.items():
        if name in fields and not fields[name].fits(value):
            shown = repr(value)
            shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
            raise ValueError(f"{name}: got {shown}, expected {fields[name].expected}")


def parse(text: bytes) -> dict[str, Any]:
    """The JSON object of a line, NaN and infinities among its values. ValueError for anything else."""
    try:
        line = json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(line, dict):
        raise ValueError(f"got {type(line).__name__}, expected a JSON object")
    return line


@contextlib.contextmanager
def naming(place: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """A ValueError or TypeError in this context becomes one of this kind that names the place first."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise kind(f"{place}{error}") from None
