"""`statemix report`: one page from finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemix.cli.console import output


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The folder of the page and its figures.")] = Path("report"),
) -> None:
    """Write a self-contained page, with figures, about one or more runs."""
    from statemix.report import write_report

    page = write_report(runs, out)
    output().say(f"report: {page}")
