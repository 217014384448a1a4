"""`statemix rivals`: which rivals run here, and whether they compute the right numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape
from rich.table import Table

from statemix.bench.environment import describe
from statemix.bench.files import write_json
from statemix.bench.packages import FLA, version
from statemix.cli.console import output, progress
from statemix.cli.errors import Failure
from statemix.nn.rivals.check import Check, checks

VERDICTS = {True: "[green]ok[/]", False: "[red]WRONG[/]", None: "not compared"}


def rivals(
    device: Annotated[
        str, typer.Option(help="Where to compare: cpu, cuda, cuda:1; auto takes a GPU.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this JSON file.")] = None,
) -> None:
    """List the rivals and compare each with a float64 loop, outputs and gradients; exit code 1 if one is wrong."""
    where = _device(device)
    with progress().status("comparing (the first time, kernels are compiled and tuned)"):
        results = list(checks(where))
    output().print(_table(results))
    for reason in dict.fromkeys(check.reason for check in results if check.reason):
        names = ", ".join(dict.fromkeys(check.rival for check in results if check.reason == reason))
        output().print(f"{names}: {reason}", markup=False, soft_wrap=True)
    if out is not None:
        packages = {FLA.distribution: version(FLA)}
        record = {"bench": "rivals", "environment": describe(str(where)), "packages": packages}
        write_json(out, record | {"checks": [check.to_dict() for check in results]})
    wrong = [check.rival for check in results if check.passed is False]
    if wrong:
        raise Failure(f"{len(wrong)} comparisons failed: {', '.join(dict.fromkeys(wrong))}")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    known = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device.type not in known:
        raise ValueError(f"device: got {name!r}, expected one of {', '.join(known)}")
    return device


def _table(results: list[Check]) -> Table:
    table = Table(title="relative error against a float64 loop", title_justify="left")
    for column in ("rival", "operation", "runs here as", "dtype", "outputs", "worst gradient", "allowed", ""):
        table.add_column(column, overflow="fold")
    for check in results:
        table.add_row(
            check.rival, escape(check.operation), check.runs or "no", check.dtype, _error(check.output_error),
            _worst(check), f"{check.bound:.0e}", VERDICTS[check.passed],
        )  # fmt: skip
    return table


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"


def _worst(check: Check) -> str:
    """The largest gradient error and whose it is; NaN before all."""
    if not check.gradient_errors:
        return "-"
    name = max(check.gradient_errors, key=lambda key: (check.gradient_errors[key] != check.gradient_errors[key],
                                                       check.gradient_errors[key]))  # fmt: skip
    return f"{_error(check.gradient_errors[name])} ({name})"
