"""The three standard streams, made fit for every command: open, and of any encoding."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from pathlib import Path

from statemix.text import visible

PLAIN = str.maketrans({
    "→": "->", "×": "x", "·": ".", "±": "+-", "–": "-", "—": "-", "−": "-", "…": "...", "µ": "u", "°": "deg",
    "≥": ">=", "≤": "<=", "∘": "o", "✓": "ok", "•": "*", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ",
})  # fmt: skip
"""How the command's own signs are written where they cannot be encoded."""

READER_LEFT = 141
"""The exit code of a program that a signal ends because nobody reads on: 128 + SIGPIPE."""

CANNOT_WRITE = (errno.ENOSPC, errno.EIO, errno.EFBIG)
"""Errors of standard output where they name no file: all other files are written by what names them."""


def _replace(error: UnicodeError) -> tuple[str, int]:
    """The error handler "statemix": a plain sign for one of `PLAIN`, else a backslash escape."""
    assert isinstance(error, UnicodeEncodeError)
    bad = error.object[error.start : error.end]
    return visible(bad).translate(PLAIN).encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("statemix", _replace)


def encodable(text: str, encoding: str | None) -> str:
    """`text` with what an encoding does not have replaced, as the streams do; the width is then known.

    None is the encoding of a stream of text in memory, which takes everything.
    """
    if encoding is None:
        return text
    try:
        return text.encode(encoding, "statemix").decode(encoding)
    except (LookupError, UnicodeError):  # an encoding of bytes, or none that Python knows
        return text.encode("ascii", "statemix").decode()


def prepare() -> None:
    """Open what is closed, on nothing, and let stdout and stderr replace what they cannot encode."""
    closed = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _occupy(number)
        stream = getattr(sys, name)
        if stream is None:
            nothing = Path(os.devnull).open("w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nothing)
        elif number:
            with contextlib.suppress(AttributeError, OSError, ValueError):  # somebody's replacement
                stream.reconfigure(errors="statemix")
    if closed:
        print("note: standard output is closed: results are not printed", file=sys.stderr)


def _occupy(number: int) -> None:
    """A closed standard descriptor would be given to the next file that is opened, a run's metrics perhaps."""
    try:
        os.fstat(number)
    except OSError:
        nothing = os.open(os.devnull, os.O_RDWR)
        if nothing != number:
            os.dup2(nothing, number)
            os.close(nothing)
        os.set_inheritable(number, True)


def is_broken_pipe(error: BaseException | None) -> bool:
    """Whether a reader left: by the error itself, or the one for which the parser gave up."""
    return isinstance(error, BrokenPipeError) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError)
    )


def flush() -> None:
    """Write out what is buffered for standard output: the error of a full disk, before the exit code is told."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def settle() -> None:
    """Before the end: what cannot be written any more goes nowhere, so that the interpreter does not trip over it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)
