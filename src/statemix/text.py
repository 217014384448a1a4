"""Text for people: what a terminal must not obey made visible, and spans of time."""

from __future__ import annotations

import re

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, line separators, and changes of the direction of writing."""

_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of characters, but for those that stand for a byte that Python could not decode."""

_WORDS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object, keep: str = "") -> str:
    """`text` as one line that a terminal shows and does not obey; letters of any script stay as they are.

    Control characters become escapes such as \\x1b and \\n, except those in `keep`. A byte of a file name that is no
    UTF-8 becomes \\xff.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), encoded(str(text)))


def encoded(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of arguments and file names that Python could not decode are read as UTF-8 (a
    locale may not know it), and shown as \\xff if they are none."""
    whole = _HALVES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _escape(character: str) -> str:
    code = ord(character)
    return _WORDS.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def duration(seconds: float) -> str:
    """ "45 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
