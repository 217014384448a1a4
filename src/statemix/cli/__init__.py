"""The command `statemix`; needs the extra `train`, but for `statemix doctor`."""

from __future__ import annotations

import contextlib
import sys
import warnings

from statemix.cli import streams
from statemix.extras import install, installed
from statemix.text import visible

NEEDED = ("typer", "rich")


def main(app: str = "statemix.cli.app") -> int:
    """Run the command line whose module `app` holds a `PROGRAM`, and return its exit code.

    0, 1 for a failure, 2 for bad input, 130 for Ctrl-C, 141 when whoever read standard output has left.
    """
    streams.prepare()
    warnings.showwarning = _warn
    out, err = sys.stdout, sys.stderr
    missing = [name for name in NEEDED if not installed(name)]
    code = _without(missing, sys.argv[1:]) if missing else _run(app, sys.argv[1:])
    sys.stdout, sys.stderr = out, err  # the parser wraps them when a reader leaves
    streams.settle()
    return code


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning in one line, without its place in the code."""
    with contextlib.suppress(OSError, ValueError):
        print(f"warning: {visible(' '.join(str(message).split()))}", file=sys.stderr, flush=True)


def _run(app: str, arguments: list[str]) -> int:
    from importlib import import_module

    return import_module(app).PROGRAM.run(arguments)  # type: ignore[no-any-return]


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
