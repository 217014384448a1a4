"""What is seen while a sweep runs: done, running, failed, time left; lines that move, or one now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live

from statemix.cli import Styled
from statemix.cli import progress as console_of
from statemix.text import duration
from statemix.waiting import Lines, is_watched

if TYPE_CHECKING:
    from statemix_research.sweeps import Progress

LISTED = 8
"""Running jobs that are listed, those that have run longest; in a line the first `IN_A_LINE`."""

IN_A_LINE = 3

Names = Mapping[str, str]
"""What a person calls a job: its task, model and seed by its key."""


@contextlib.contextmanager
def watching(name: str, total: int, names: Names) -> Iterator[Callable[[Progress], None]]:
    """A function to be told where the sweep stands; it is shown on standard error."""
    if is_watched():
        live = Live(console=console_of(), refresh_per_second=4, transient=True)
        live.start()
        try:
            yield lambda progress: live.update(picture(name, progress, names))
        finally:
            with contextlib.suppress(OSError):  # a terminal that has closed cannot be tidied up
                live.stop()
        return
    latest: list[Progress] = []
    with Lines(lambda: line(name, latest[-1], names) if latest else f"{name}: {total} runs", total) as lines:

        def watch(progress: Progress) -> None:
            latest[:] = [progress]
            lines.moved(_ended(progress))

        yield watch


def _ended(progress: Progress) -> int:
    return sum(progress.counts.values()) + len(progress.trained)


def picture(name: str, progress: Progress, names: Names) -> Group:
    """Where a sweep stands, and below it what runs."""
    lines = under_way(progress, names, LISTED)
    return Group(Styled(standing(name, progress), ""), *(Styled(text, "dim") for text in lines))


def under_way(progress: Progress, names: Names, most: int) -> list[str]:
    """The jobs that have run longest, by task, model and seed, and how long; then how many more there are."""
    now = time.monotonic()
    oldest = sorted(
        ((since, key) for key, since in progress.running.items() if key not in progress.trained),
    )
    texts = [f"{names.get(key, key)} ({duration(now - since)})" for since, key in oldest[:most]]
    if len(oldest) > most:
        texts.append(f"and {len(oldest) - most} more")
    return texts


def line(name: str, progress: Progress, names: Names) -> str:
    """Where a sweep stands and what runs, in a line."""
    running = under_way(progress, names, IN_A_LINE)
    return standing(name, progress) + (f"; running: {'; '.join(running)}" if running else "")


def standing(name: str, progress: Progress) -> str:
    """How many runs are done and failed, and how much time is left."""
    counts = progress.counts
    parts = [f"{name}: {_ended(progress)} of {progress.total} runs done"]
    parts += [f"{counts[status]} {status}" for status in ("diverged", "failed") if counts[status]]
    if progress.time_left is not None and progress.running:
        parts.append(f"{duration(progress.time_left)} left")
    return ", ".join(parts)
