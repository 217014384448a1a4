"""`statemix eval`: the accuracy of a trained run at other lengths."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from statemix.cli.console import output
from statemix.cli.lists import whole_numbers
from statemix.cli.table import Column, Table
from statemix.cli.tables import percent
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
    table = Table(f"test split, {visible(folder)}", [Column(name, number=True) for name in names])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        results = evaluate_run(folder, chosen, examples)
    for one in told:
        print(f"note: {visible(one.message)}", file=sys.stderr)
    for length, scores in results.items():
        accuracy, macro = percent(scores["accuracy"]), percent(scores["macro_accuracy"])
        table.add_row(str(length), accuracy, macro, f"{scores['loss']:.4f}")
    output().print(table)
