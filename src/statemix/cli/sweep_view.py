"""A table that moves while a sweep runs: done, running, failed, time left. One line at the end when nobody watches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table

from statemix.cli.console import progress as console_of

if TYPE_CHECKING:
    from statemix.experiments import Progress

LISTED = 8
"""Running jobs that are listed."""


@contextlib.contextmanager
def watching(name: str, total: int) -> Iterator[Callable[[Progress], None]]:
    """A function to be told where the sweep stands; the table is drawn on standard error if it is a terminal."""
    console = console_of()
    if not console.is_terminal:
        yield lambda progress: None
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(picture(name, progress))


def picture(name: str, progress: Progress) -> Table:
    """Where a sweep stands, as a table."""
    table = Table(title=f"{name}: {progress.total} runs", title_justify="left")
    for column in ("done", "diverged", "running", "failed", "waiting", "time left"):
        table.add_column(column, justify="right")
    counts = progress.counts
    left = "–" if progress.time_left is None else duration(progress.time_left)
    done, running = counts["finished"] + len(progress.trained), len(progress.running) - len(progress.trained)
    numbers = (done, counts["diverged"], running, counts["failed"], progress.left)
    table.add_row(*map(str, numbers), left)
    now = time.monotonic()
    oldest = sorted(progress.running.items(), key=lambda item: item[1])[:LISTED]
    parts = [f"{key[:6]} {duration(now - since)}" for key, since in oldest]
    if progress.compiling:
        parts.append(f"{progress.compiling} models to compile")
    table.caption = "  ".join(parts)
    return table


def duration(seconds: float) -> str:
    """ "45 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
