"""Tables that more than one command prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemix.cli.console import Styled
from statemix.cli.table import Cell, Column, Table
from statemix.text import visible

GOOD = 0.99
"""From here on an accuracy is green."""


def accuracies(summaries: Mapping[str, Mapping[str, Any]], training_length: int | None = None) -> Table:
    """Test accuracy of runs by length: one row a run; lengths also as multiples of the training length if given."""
    lengths = sorted({int(length) for s in summaries.values() for length in s["accuracy"]})
    columns = [Column("run"), Column("steps", number=True), Column("weights", number=True)]
    columns += [Column(_length(length, training_length), number=True) for length in lengths]
    table = Table("test accuracy by length", columns)
    for name, summary in summaries.items():
        numbers = [percent(summary["accuracy"].get(str(length))) for length in lengths]
        table.add_row(visible(name), str(summary["step"]), f"{summary['parameters']:,}", *numbers)
    return table


def _length(length: int, training_length: int | None) -> str:
    if not training_length or length % training_length:
        return str(length)
    return f"{length} ({length // training_length}×)"


def percent(value: float | None) -> Cell:
    """An accuracy in green or red; a dash where there is none."""
    if value is None:
        return "-"
    return Styled(f"{100 * value:.1f} %", "green" if value >= GOOD else "red")
