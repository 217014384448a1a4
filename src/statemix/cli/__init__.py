"""The command `statemix`, and what other commands are made of. All but `statemix doctor` needs the extra `train`."""

from __future__ import annotations

import contextlib
import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from statemix.cli import streams
from statemix.extras import install, installed
from statemix.text import visible

if TYPE_CHECKING:
    from statemix.cli.console import Column, Styled, Table, output, progress
    from statemix.cli.errors import Failure, Interrupted
    from statemix.cli.program import Commands, Program

__all__ = [
    "Column", "Commands", "Failure", "Interrupted", "Program", "Styled", "Table", "main", "output", "progress",
]  # fmt: skip

PLACES = {
    "Column": "console", "Styled": "console", "Table": "console", "output": "console", "progress": "console",
    "Failure": "errors", "Interrupted": "errors", "Commands": "program", "Program": "program",
}  # fmt: skip
"""The modules of the public names; imported when they are first used, because `statemix doctor` runs without rich."""

NEEDED = ("typer", "rich")


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"statemix.cli.{PLACES[name]}"), name)


def main(app: str = "statemix.cli.app") -> int:
    """Run the command line whose module `app` holds a `PROGRAM`, and return its exit code.

    0, 1 for a failure, 2 for bad input, 130 for Ctrl-C, 141 when whoever read standard output has left.
    """
    streams.prepare()
    warnings.showwarning = _warn
    out, err, arguments = sys.stdout, sys.stderr, sys.argv[1:]
    missing = [name for name in NEEDED if not installed(name)]
    code = _without(missing, arguments) if missing else import_module(app).PROGRAM.run(arguments)
    sys.stdout, sys.stderr = out, err  # the parser wraps them when a reader leaves
    streams.settle()
    return int(code)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line, without its place in the code."""
    with contextlib.suppress(OSError, ValueError):
        print(f"warning: {visible(' '.join(str(message).split()))}", file=sys.stderr, flush=True)


def _without(missing: list[str], arguments: list[str]) -> int:
    """What works with torch alone: `doctor`. For everything else, what to install."""
    from statemix.cli.errors import report

    try:
        if [word for word in arguments if word != "--debug"] == ["doctor"]:
            from statemix.cli.doctor import doctor

            doctor()
            streams.flush()
            return 0
        raise ModuleNotFoundError(
            f"the command needs {' and '.join(missing)}: {install(*missing, 'safetensors')} (from a clone of statemix: "
            'pip install -e ".[train]"); statemix doctor runs without'
        )
    except BaseException as error:
        return report(error, "--debug" in arguments)
