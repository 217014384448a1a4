"""The command `statemix`; needs the extra `train`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("typer", "rich")


def main() -> int:
    """Run the command line and return its exit code: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f'error: {missing[0]} is not installed: pip install "statemix[train]"', file=sys.stderr)
        return 1
    from statemix.cli.app import run

    return run(sys.argv[1:])
