"""Where commands write: results to stdout, everything else to stderr. Nothing in what is printed is markup."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, NamedTuple

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from statemix.cli.streams import encodable
from statemix.text import visible

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
        """As rich's; what cannot be told on standard error stops nothing."""
        with contextlib.suppress(*([OSError] if self.stderr else [])):
            super().print(*objects, **settings)

    def say(self, line: object, style: str = "") -> None:
        """One line, however long; what would break it is shown as an escape."""
        self.print(visible(line), style=style or None, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """The reader has left: the caller decides."""
        raise BrokenPipeError


class Styled(NamedTuple):
    """A string with a style of rich's, told apart from markup."""

    text: str
    style: str

    def __str__(self) -> str:
        return self.text

    def _text(self, console: RichConsole) -> Text:
        return console.render_str(self.text, style=self.style, markup=False, emoji=False, highlight=False)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """As the console renders a string."""
        yield self._text(console)

    def __rich_measure__(self, console: RichConsole, options: ConsoleOptions) -> Measurement:
        """As a string's."""
        return Measurement.get(console, options, self._text(console))


def output() -> Console:
    """For results. Without a terminal, lines are as wide as they need to be (at most COLUMNS, if that is set)."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED
    return Console(width=width)


def progress() -> Console:
    """For what is under way."""
    return Console(stderr=True)
