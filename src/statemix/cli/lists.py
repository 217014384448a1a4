"""Lists of whole numbers on the command line."""

from __future__ import annotations


def whole_numbers(name: str, text: str) -> list[int]:
    """ "16,32" -> [16, 32], without repetitions. ValueError naming the option."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}: got {text!r}, expected whole numbers such as 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))
