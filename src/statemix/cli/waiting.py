"""Where a command stands that does one thing after another: a line that moves, or plain lines now and then."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from statemix.cli.console import progress
from statemix.text import duration, visible
from statemix.waiting import COMPILING, Lines, compiling, is_watched


class Work:
    """How much is done of a number of things, which one is under way, and how long the rest may take."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done, self.now = what, total, 0, ""
        self.moved: Callable[[int], None] = lambda done: None
        self._begun = time.monotonic()

    def begin(self, now: str) -> None:
        """This is under way now."""
        self.now = now

    def end(self) -> None:
        """One more is done."""
        self.done += 1
        self.moved(self.done)

    def __str__(self) -> str:
        parts = [f"{self.what}: {self.done} of {self.total} done"]
        if self.done < self.total:
            parts += [visible(self.now)] if self.now else []
            if self.done:
                left = (self.total - self.done) * (time.monotonic() - self._begun) / self.done
                parts.append(f"{duration(left)} left")
            parts += [COMPILING] if compiling() else []
        return ", ".join(parts)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As it is when it is drawn."""
        yield console.render_str(str(self), style="dim")


@contextlib.contextmanager
def working(what: str, total: int) -> Iterator[Work]:
    """Something to be told what begins and ends; it is shown on standard error."""
    work = Work(what, total)
    if is_watched():
        with Live(work, console=progress(), refresh_per_second=4, transient=True):
            yield work
        return
    with Lines(lambda: str(work), total) as lines:
        work.moved = lines.moved
        yield work
