"""Text for people: what a terminal must not obey made visible, and spans of time."""

from __future__ import annotations

import re

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, changes of the direction of writing, and halves of characters."""

_WORDS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: object, keep: str = "") -> str:
    """`text` as one line that a terminal shows and does not obey; letters of any script stay as they are.

    Control characters become escapes such as \\x1b and \\n, except those in `keep`. A byte of a file name that is no
    UTF-8 becomes \\xff.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that it could not decode
        code -= 0xDC00
    return _WORDS.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def duration(seconds: float) -> str:
    """ "45 s", "3 min 05 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
