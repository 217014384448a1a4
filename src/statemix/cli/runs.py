"""`statemix eval` and `statemix report`: what is done with the folders of trained runs."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from statemix.cli.console import output
from statemix.cli.table import Column, Table
from statemix.cli.train import percent
from statemix.text import visible


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")],
    lengths: Annotated[
        str | None, typer.Option(help="Comma-separated; the training length if left out.")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(help="Instances at each length; as many as in training if left out.")
    ] = None,
) -> None:
    """Evaluate a run's final weights on its task's test split. Nothing is written."""
    from statemix.training import evaluate_run

    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    chosen = [] if lengths is None else whole_numbers("lengths", lengths)
    names = ("length", "accuracy", "macro accuracy", "loss")
    table = Table(f"test split, {folder}", [Column(name, number=True) for name in names])
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", RuntimeWarning)
        results = evaluate_run(folder, chosen, examples)
    for note in notes:
        print(f"note: {visible(note.message)}", file=sys.stderr)
    for length, scores in results.items():
        accuracy, macro = percent(scores["accuracy"]), percent(scores["macro_accuracy"])
        table.add_row(str(length), accuracy, macro, f"{scores['loss']:.4f}")
    output().print(table)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The folder of the page and its figures.")] = Path("report"),
) -> None:
    """Write a self-contained page, with figures, about one or more runs."""
    from statemix.report import write_report

    output().say(f"report: {write_report(runs, out)}")


def whole_numbers(name: str, text: str) -> list[int]:
    """ "16,32" -> [16, 32], without repetitions. ValueError naming the option."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}: got {text!r}, expected whole numbers such as 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))
