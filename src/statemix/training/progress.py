"""Where a run stands: a bar on a terminal (rich), plain lines in a log, or nothing."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from typing import Any

from statemix.extras import installed, missing
from statemix.text import duration, visible
from statemix.waiting import COMPILING, PATIENCE, Lines, compiling, is_watched


class Progress:
    """A context that shows how much of `total` is done; `str` of it is what is shown.

    name: what is counted, such as "demo, step". wanted: True shows it, False does not, None does on a terminal where
    rich is installed. Errors: ImportError when it is wanted on a terminal and rich is not installed.
    """

    def __init__(self, wanted: bool | None, name: str, done: int, total: int) -> None:
        self.name, self.done, self.total = visible(name), done, total
        self.numbers: dict[str, float] = {}
        self._begun = time.monotonic()
        self._marks: list[tuple[float, int]] = []  # when the first steps were done, and the last
        self._bar: Any = None
        self._lines: Lines | None = None
        watched = is_watched()
        if watched and (wanted or (wanted is None and installed("rich"))):
            self._bar = _rich_bar(self)
        elif wanted:
            self._lines = Lines(lambda: str(self), total, done)
        self._shown: AbstractContextManager[Any] = self._bar or self._lines or contextlib.nullcontext()

    def __enter__(self) -> Progress:
        self._shown.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown.__exit__(*error)

    def tell(self, done: int, **numbers: float) -> None:
        """So much is done, with numbers to show: "loss 1.235" for a float, "3 finished" for an int."""
        self.numbers |= numbers
        if done > self.done:
            self._marks = [*self._marks[:1], (time.monotonic(), done)]
        self.done = done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
        if self._lines is not None:
            self._lines.moved(done)

    def __str__(self) -> str:
        """Steps before the first look are not counted in the time that is left: kernels were compiled."""
        parts = [f"{self.name} {self.done}/{self.total} ({100 * self.done // max(1, self.total)} %)"]
        for name, number in self.numbers.items():
            parts.append(f"{number} {name}" if isinstance(number, int) else f"{name} {number:.3f}")
        if not self._marks and time.monotonic() - self._begun > PATIENCE and compiling():
            parts.append(COMPILING)
        if len(self._marks) == 2 and self.done < self.total:
            (begun, first), (now, last) = self._marks
            parts.append(f"{duration((self.total - self.done) * (now - begun) / (last - first))} left")
        return ", ".join(parts)


def _rich_bar(standing: Progress) -> Any:
    if not installed("rich"):
        raise ImportError(missing("rich"))
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    words = TextColumn("{task.fields[standing]}", markup=False, table_column=Column(overflow="fold"))
    bar = RichProgress(words, BarColumn(bar_width=20), console=Console(stderr=True), refresh_per_second=4)
    bar.add_task("", total=standing.total, completed=standing.done, standing=standing)
    return bar
