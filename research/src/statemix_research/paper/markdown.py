"""Text in Markdown pages: whatever a name or an error holds is shown, and is no markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from statemix.text import visible

_MARKS = re.compile(r"[\\`*\[|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What means something inside a line, an underscore inside a word aside."""


def plain(text: object) -> str:
    """`text` as one line of Markdown that shows it, in a table too: nothing in it is markup, HTML or a line break."""
    line = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", line)


def code(text: object) -> str:
    """`text` in one line of fixed width."""
    line = visible(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A table; its cells are Markdown."""
    rows = [list(columns), ["---"] * len(columns), *map(list, lines)]
    return [f"| {' | '.join(row)} |" for row in rows]
