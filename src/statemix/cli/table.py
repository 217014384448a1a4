"""A table that cuts nothing: as columns where they fit, else one row below the other; plain text without rich."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from statemix.text import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable

    from statemix.cli.console import Styled

Cell: TypeAlias = "str | Styled | list[str | Styled]"
"""What a cell holds; a list is one line below the other."""

PROSE = 90
"""Columns of text are at most so wide, and are the first to be wrapped."""


def _shown(text: str | Styled) -> Styled:
    """A string that no console takes for markup, on one line."""
    from statemix.cli.console import Styled

    return Styled(visible(text), "") if isinstance(text, str) else text


class Column(NamedTuple):
    """A heading; numbers are flush right; prose is wrapped at its spaces, anything else never."""

    name: str
    number: bool = False
    prose: bool = False


@dataclass
class Table:
    """Rows under columns. `headed`: whether the names of the columns are shown above them."""

    title: str
    columns: list[Column]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    headed: bool = True

    def add_row(self, *cells: Cell) -> None:
        """A cell for every column; those left out are empty."""
        self.rows.append((*cells, *[""] * (len(self.columns) - len(cells))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Side by side if every word of prose and every other cell fits, else below one another."""
        from rich.measure import Measurement

        from statemix.cli.console import Styled

        if self.title:
            yield Styled(self.title, "italic")
        table = self._table()
        needed = Measurement.get(console, options.update_width(100_000), table).minimum
        if needed <= options.max_width:
            yield table
        else:
            yield from self._stacked()

    def _table(self) -> RichTable:
        from rich.box import HEAVY_HEAD
        from rich.console import Group
        from rich.table import Table as RichTable

        box = HEAVY_HEAD if self.headed else None
        table = RichTable(show_header=self.headed, box=box, pad_edge=self.headed)
        for column in self.columns:
            table.add_column(
                _shown(column.name), justify="right" if column.number else "left", overflow="fold",
                no_wrap=not column.prose, max_width=PROSE if column.prose else None,
            )  # fmt: skip
        for row in self.rows:
            table.add_row(*(Group(*map(_shown, c)) if isinstance(c, list) else _shown(c) for c in row))
        return table

    def _stacked(self) -> RenderResult:
        """Every row: its first cell, then the others, each under its heading's name and indented."""
        from rich.padding import Padding

        from statemix.cli.console import Styled

        for row in self.rows:
            for place, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
                lines = [one for one in (cell if isinstance(cell, list) else [cell]) if str(one)]
                name = f"{column.name}: " if column.name and self.headed else ""
                for number, one in enumerate(lines):
                    text = Styled(f"{'' if number else name}{one}", _shown(one).style)
                    yield Padding(text, (0, 0, 0, 0 if place == number == 0 else 2))

    def __str__(self) -> str:
        """As plain text."""
        lines = [
            [visible(" ".join(map(str, cell)) if isinstance(cell, list) else cell) for cell in row]
            for row in ([tuple(column.name for column in self.columns)] if self.headed else []) + self.rows
        ]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)] if lines else []
        rows = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([*([self.title] if self.title else []), *rows])
