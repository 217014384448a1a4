"""An extension of griffe: examples in docstrings (`>>>`) are shown as code, wherever they stand."""

from __future__ import annotations

from typing import Any

import griffe


def fenced(text: str) -> str:
    """Every paragraph of `text` that begins with `>>>` in a fence of its own."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        starts = line.lstrip().startswith(">>>")
        indent = line[: len(line) - len(line.lstrip())]
        if starts and not inside:
            lines.append(f"{indent}```pycon")
            inside, margin = True, indent
        elif inside and not line.strip():
            lines.append(f"{margin}```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, f"{margin}```"] if inside else lines)


class Doctests(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, if it has examples."""
        if (
            obj.docstring
            and ">>>" in obj.docstring.value
            and "```" not in obj.docstring.value
        ):
            obj.docstring.value = fenced(obj.docstring.value)
