"""From exceptions to one line on stderr and an exit code."""

from __future__ import annotations

import sys
import traceback

BAD_INPUT = (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
FAILURES = (OSError, ImportError, RuntimeError, ArithmeticError)

OK, FAILED, BAD, INTERRUPTED = 0, 1, 2, 130

EXTRAS = {
    "numba": "cpu",
    "triton": "gpu",
    "safetensors": "train",
    "tomli": "train",
    "tensorboard": "tensorboard",
    "matplotlib": "report",
    "jinja2": "report",
    "distributed": "cluster",
}
"""Which extra brings a module that may be missing."""


class Failure(RuntimeError):
    """A command did its work and the answer is no."""


class Interrupted(RuntimeError):
    """Someone asked to stop, and everything is saved."""


def message(error: BaseException) -> str:
    """One line for a person."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if top in EXTRAS:
            return f'{top} is not installed: pip install "statemix[{EXTRAS[top]}]"'
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def report(error: BaseException, debug: bool) -> int:
    """Say what went wrong on stderr and return the exit code; the traceback too if `debug`.

    An exception of no known kind is raised again: it is a defect, and its traceback is wanted.
    """
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        print(f"interrupted: {error}" if error.args else "interrupted", file=sys.stderr)
        return INTERRUPTED
    if not isinstance(error, (*BAD_INPUT, *FAILURES)):
        raise error
    print(f"error: {message(error)}", file=sys.stderr)
    return BAD if isinstance(error, BAD_INPUT) else FAILED
