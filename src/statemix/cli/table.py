"""A table that cuts nothing: as columns where they fit, else one row below the other; plain text without rich."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from statemix.text import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
    from rich.table import Table as RichTable

    from statemix.cli.console import Styled

Cell: TypeAlias = "str | Styled | list[str | Styled]"
"""What a cell holds; a list is one line below the other."""

PROSE, WORD = 90, 20
"""Columns of text are at most so wide; and no wider than this for the sake of a long word, which is folded."""


def _lines(cell: Cell) -> list[str | Styled]:
    return cell if isinstance(cell, list) else [cell]


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
        from statemix.cli.console import Styled

        if self.title:
            yield Styled(self.title, "italic")
        widths = self._widths(console, options)
        if widths is None:
            yield from self._stacked()
        else:
            yield self._side_by_side(widths)

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int] | None:
        """Of every column: what is needed, and for prose a share of the room that is left. None: no room."""
        from rich.measure import Measurement

        unbounded = options.update_width(100_000)
        least, most = list[int](), list[int]()
        for place, column in enumerate(self.columns):
            cells = [line for row in self.rows for line in _lines(row[place])]
            sizes = [Measurement.get(console, unbounded, _shown(one)) for one in (column.name, *cells)]
            most.append(max(size.maximum for size in sizes))
            least.append(min(WORD, max(size.minimum for size in sizes)) if column.prose else most[-1])
            most[-1] = max(least[-1], min(most[-1], PROSE)) if column.prose else most[-1]
        room = options.max_width - sum(least) - 3 * len(self.columns) - 1  # two blanks and a line each
        wanted = sum(most) - sum(least)
        if room < 0:
            return None
        share = min(1.0, room / wanted) if wanted else 0.0
        return [low + int(share * (high - low)) for low, high in zip(least, most, strict=True)]

    def _side_by_side(self, widths: list[int]) -> RichTable:
        from rich.box import HEAVY_HEAD
        from rich.console import Group
        from rich.table import Table as RichTable

        box = HEAVY_HEAD if self.headed else None
        table = RichTable(show_header=self.headed, box=box, pad_edge=self.headed)
        for column, width in zip(self.columns, widths, strict=True):
            justify: JustifyMethod = "right" if column.number else "left"
            table.add_column(_shown(column.name), justify=justify, overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*(Group(*map(_shown, _lines(cell))) for cell in row))
        return table

    def _stacked(self) -> RenderResult:
        """Every row: its first cell, then the others, each under its heading's name and indented."""
        from rich.padding import Padding

        from statemix.cli.console import Styled

        for row in self.rows:
            for place, (column, cell) in enumerate(zip(self.columns, row, strict=True)):
                lines = [one for one in _lines(cell) if str(one)]
                name = f"{visible(column.name)}: " if column.name and self.headed else ""
                for number, one in enumerate(lines):
                    text = Styled(f"{'' if number else name}{visible(one)}", _shown(one).style)
                    yield Padding(text, (0, 0, 0, 0 if place == number == 0 else 2))

    def __str__(self) -> str:
        """As plain text."""
        lines = [
            [visible(" ".join(map(str, _lines(cell)))) for cell in row]
            for row in ([tuple(column.name for column in self.columns)] if self.headed else []) + self.rows
        ]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)] if lines else []
        rows = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return "\n".join([*([self.title] if self.title else []), *rows])
