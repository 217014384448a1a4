"""Where commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import sys

from rich.console import Console


def output() -> Console:
    """For results. Without a terminal, lines are as wide as they need to be (at most COLUMNS, if that is set)."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(width=width, highlight=False)


def progress() -> Console:
    """For what is under way."""
    return Console(stderr=True, highlight=False)
