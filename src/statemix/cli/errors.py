"""From exceptions to one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import sys
import traceback

from statemix.cli.streams import CANNOT_WRITE, READER_LEFT, is_broken_pipe
from statemix.extras import PACKAGES, missing
from statemix.text import visible

BAD_INPUT = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
FAILURES = (OSError, ImportError, RuntimeError, ArithmeticError)

OK, FAILED, BAD, INTERRUPTED = 0, 1, 2, 130


class Failure(RuntimeError):
    """A command did its work and the answer is no."""


class Interrupted(RuntimeError):
    """Stopped by a signal or a time limit, with everything saved."""


def message(error: BaseException) -> str:
    """One line for a person."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if top in PACKAGES:
            return missing(top)
    if isinstance(error, OSError) and error.strerror:
        unnamed = "standard output" if error.errno in CANNOT_WRITE else None
        where = unnamed if error.filename is None else error.filename
        return visible(error.strerror if where is None else f"{where}: {error.strerror}")
    return visible(" ".join(str(error).split())) or type(error).__name__


def report(error: BaseException, debug: bool) -> int:
    """Print what went wrong on stderr and return the exit code; the traceback too if `debug`.

    Nothing is printed for a broken pipe. An exception of no known kind is a defect and raised again.
    """
    if is_broken_pipe(error):
        return READER_LEFT
    if debug:
        _say(visible("".join(traceback.format_exception(error)), keep="\n").rstrip())
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        _say(f"interrupted: {message(error)}" if error.args else "interrupted")
        return INTERRUPTED
    if not isinstance(error, (*BAD_INPUT, *FAILURES)):
        raise error
    _say(f"error: {message(error)}")
    return BAD if isinstance(error, BAD_INPUT) else FAILED


def _say(text: str) -> None:
    """On standard error, if it can still be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
