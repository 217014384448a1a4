"""Tables that more than one command prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

GOOD = 0.99
"""From here on an accuracy is green."""


def accuracies(summaries: Mapping[str, Mapping[str, Any]], training_length: int | None = None) -> Table:
    """Test accuracy of runs by length: one row a run; lengths also as multiples of the training length if given."""
    lengths = sorted({int(length) for s in summaries.values() for length in s["accuracy"]})
    table = Table(title="test accuracy by length", title_justify="left")
    for column in ("run", "steps", "weights"):
        table.add_column(column, no_wrap=True)
    for length in lengths:
        table.add_column(_length(length, training_length), justify="right", no_wrap=True)
    for name, summary in summaries.items():
        numbers = [percent(summary["accuracy"].get(str(length))) for length in lengths]
        table.add_row(name, str(summary["step"]), str(summary["parameters"]), *numbers)
    return table


def _length(length: int, training_length: int | None) -> str:
    if not training_length or length % training_length:
        return str(length)
    return f"{length}\n{length // training_length}×"


def percent(value: float | None) -> str:
    """An accuracy as green or red text; a dash where there is none."""
    if value is None:
        return "-"
    return f"[{'green' if value >= GOOD else 'red'}]{100 * value:.1f} %[/]"
