"""Where commands write: results to stdout, everything else to stderr. Nothing in what is printed is markup, and a table
cuts nothing: its rows are listed one below the other where the columns do not fit."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from rich.box import HEAVY_HEAD
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType, RenderResult
from rich.console import Group as Lines
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
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


PROSE = 90
"""Columns of prose are at most so wide."""


class Column(NamedTuple):
    """A heading; numbers are flush right; prose is wrapped at its spaces, anything else never."""

    name: str
    number: bool = False
    prose: bool = False


class Table(RichTable):
    """Rows under columns. A cell is a string, a `Styled`, or a list of these, one line below the other."""

    def __init__(self, title: str, columns: Iterable[Column]) -> None:
        super().__init__(box=HEAVY_HEAD)
        self.heading = title
        for column in columns:
            self.add_column(
                column.name, justify="right" if column.number else "left", overflow="fold",
                no_wrap=not column.prose, max_width=PROSE if column.prose else None,
            )  # fmt: skip

    def add_row(self, *cells: RenderableType | list[RenderableType], **settings: bool) -> None:  # type: ignore[override]
        """A cell for every column; those left out are empty."""
        shown = (Lines(*map(_text, cell)) if isinstance(cell, list) else _text(cell) for cell in cells)
        super().add_row(*shown)

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        """Side by side if every word of prose and every other cell fits, else below one another."""
        if self.heading:
            yield console.render_str(visible(self.heading), style="italic")
        needed = Measurement.get(console, options.update_width(UNBOUNDED), self).minimum
        if needed <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            for place, (column, cell) in enumerate(zip(self.columns, cells, strict=True)):
                name = f"{column.header}: " if column.header else ""
                for number, line in enumerate(cell.renderables if isinstance(cell, Lines) else [cell]):
                    if str(line):
                        indent = 2 if place or number else 0
                        yield Padding(Text.assemble("" if number else name, line), (0, 0, 0, indent))


def _text(cell: RenderableType) -> RenderableType:
    return Styled(cell, "") if isinstance(cell, str) else cell
