"""Where commands write: results to stdout, everything else to stderr. Nothing in what is printed is markup."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from statemix.cli.streams import encodable
from statemix.text import duration, visible
from statemix.waiting import COMPILING, Lines, compiling, is_watched

UNBOUNDED = 10_000
"""The width of what is no terminal: a line is as long as it needs to be."""


class Console(RichConsole):
    """rich's console that takes text for text: no markup, no emoji codes, no terminal escapes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Every plain string comes through here. Only line feeds are obeyed."""
        return super().render_str(encodable(visible(text, keep="\n"), self.encoding), **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's; a standard error that cannot be written stops nothing."""
        with contextlib.suppress(*([OSError] if self.stderr else [])):
            super().print(*objects, **settings)

    def say(self, line: object, style: str = "") -> None:
        """One line, however long; what would break it is shown as an escape."""
        self.print(visible(line), style=style or None, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """The reader has left: the caller decides."""
        raise BrokenPipeError


class Styled(Text):
    """A string with a style of rich's; its text is no markup and obeys nothing."""

    def __init__(self, text: object, style: str) -> None:
        super().__init__(encodable(visible(text), sys.stdout.encoding), style)


def output() -> Console:
    """For results. Without a terminal, lines are as wide as they need to be (at most COLUMNS, if that is set)."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED
    return Console(width=width)


def progress() -> Console:
    """For what is under way."""
    return Console(stderr=True)


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

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """As it is when it is drawn."""
        yield console.render_str(str(self), style="dim")


@contextlib.contextmanager
def working(what: str, total: int) -> Iterator[Work]:
    """Progress through `total` things, on standard error: one line that moves on a terminal, plain lines in a log."""
    work = Work(what, total)
    if is_watched():
        with Live(work, console=progress(), refresh_per_second=4, transient=True):
            yield work
        return
    with Lines(lambda: str(work), total) as lines:
        work.moved = lines.moved
        yield work
