"""`statemix-research baselines`: which baselines run here, and whether they compute the right numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from statemix.cli import Column, Failure, Styled, Table, output, progress
from statemix.environment import describe, installed_version
from statemix.training.files import write_json

if TYPE_CHECKING:
    from statemix_research.baselines.verify import Check

FLA = "flash-linear-attention"

PROSE = ("baseline", "runs here as")
"""Columns that may be wrapped."""

VERDICTS = {True: Styled("ok", "green"), False: Styled("WRONG", "red")}


def baselines(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]...", help="Some of the baselines; all of them if left out."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to compare: cpu, cuda, cuda:1; auto takes a GPU.")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this JSON file.")] = None,
) -> None:
    """List the baselines and compare each with a float64 loop, outputs and gradients; exit code 1 if one is wrong."""
    from statemix_research.baselines.verify import (  # torch's compiler, which other commands need not load
        check,
        select,
    )

    where, results = device_named(device), []
    for case in select(names or []):
        progress().say(f"comparing {case.baseline}, {case.operation}", style="dim")
        results.append(check(case, where))
    output().print(_table(results))
    for reason in dict.fromkeys(one.reason for one in results if one.reason):
        those = ", ".join(dict.fromkeys(one.baseline for one in results if one.reason == reason))
        output().say(f"{those}: {reason}")
    if out is not None:
        packages = {FLA: installed_version(FLA)}
        record = {"bench": "baselines", "environment": describe(str(where)), "packages": packages}
        write_json(out, record | {"checks": [one.to_dict() for one in results]})
    wrong = [one.baseline for one in results if not one.passed]
    if wrong:
        raise Failure(f"{len(wrong)} comparisons failed: {', '.join(dict.fromkeys(wrong))}")


def device_named(name: str) -> torch.device:
    """The device of an option `--device`; "auto" takes a GPU. ValueError for one that is not here."""
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
    names = ("baseline", "runs here as", "errors", "")
    title = "relative errors against a float64 loop: of the outputs, and of the worst gradient"
    table = Table(title, [Column(name, prose=name in PROSE) for name in names])
    for one in results:
        worst = sorted(one.gradient_errors.items(), key=lambda item: (math.isnan(item[1]), item[1]))[-1:]
        table.add_row(
            [one.baseline, Styled(one.operation, "dim")], f"{one.runs or 'no'}, {one.dtype}",
            [f"{one.output_error:.1e} outputs", *(f"{error:.1e} {name}" for name, error in worst)],
            [VERDICTS[one.passed], Styled(f"≤ {one.bound:.0e}", "dim")],
        )  # fmt: skip
    return table
