"""`statemix tune`: measure launches on this GPU and keep the best, or show the launches in use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from statemix.cli.console import output, progress
from statemix.cli.table import Column, Table
from statemix.cli.waiting import working
from statemix.ops.triton import table
from statemix.text import visible

if TYPE_CHECKING:
    from statemix.cli import tuning

DEFAULT_SHAPES = "bdlru:1,bdlru:2,bdlru:3,bdlru:4,bdlru:8,bdlru:16,hlru:4,hlru:8,hlru:16"
DEFAULT_SIZES = "8x2048x1024,32x2048x1024"


def tune(
    shapes: Annotated[
        str, typer.Option(help="recurrence:m, comma-separated, or recurrence:m:N.")
    ] = DEFAULT_SHAPES,
    sizes: Annotated[str, typer.Option(help="BxTxH, comma-separated; H = N m channels.")] = DEFAULT_SIZES,
    dtype: Annotated[str, typer.Option(help="One of bfloat16, float16, float32.")] = "bfloat16",
    repeats: Annotated[int, typer.Option(help="Samples of each launch.")] = 15,
    threads: Annotated[
        int, typer.Option(help="Kernels compiled at a time; 0: as many as there are cores.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, but write nothing.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Measure nothing; show the launches in use.")] = False,
) -> None:
    """Measure kernel launches on this GPU and keep the fastest in your own launch table.

    Forward and backward of every shape, every candidate and the portable kernels; each is checked against float64
    first. A size stands for all with as many lanes (few or many). Expect a minute or two for each shape and size.
    The table is a JSON file that the kernels read when they are first used: $STATEMIX_LAUNCH_TABLE, else
    statemix/launch.json in the user's configuration.
    """
    from benchmarks.cases import parse_shapes, parse_sizes
    from benchmarks.clock import check_repeats
    from benchmarks.passes import check_dtype
    from statemix.cli import tuning, tuning_gpu

    if show:
        _show_in_use()
        return
    check_repeats(repeats)
    check_dtype(dtype)
    if threads < 0:
        raise ValueError(f"threads: got {threads}, expected at least 0")
    cases = parse_shapes(shapes, parse_sizes(sizes))
    path = table.user_file()
    tuning.read_devices(path)  # a file that cannot be kept is told before the work
    device = tuning_gpu.check_machine()
    measurer = partial(
        tuning_gpu.Gpu, dtype=dtype, place=device, repeats=repeats, threads=threads or os.cpu_count() or 1
    )
    choices: list[tuning.Choice] = []
    with tuning_gpu.in_charge(), working("shapes tuned", len(cases)) as work:
        for choice in tuning.run(list(map(tuning_gpu.aligned, cases)), measurer):
            choices.append(choice)
            work.end()
            progress().say(f"{choice.key}: {_launch(choice.best)} of {choice.tried}")
    output().print(_gains(choices))
    if dry_run:
        output().print("nothing was written (--dry-run)")
        return
    entries = tuning.save(path, tuning_gpu.name(device), choices)
    output().say(f"{path}: {entries} entries for {tuning_gpu.name(device)}")


PROSE = ("key", "launch", "left out")
"""Columns that may be wrapped."""

LAUNCH = "workers×warps · steps×stages · registers"


def _launch(launch: tuning.Launch) -> str:
    if launch is None:
        return "portable kernels"
    workers, warps, steps, stages, registers = launch
    return f"{workers}×{warps} · {steps}×{stages} · {registers}"


def _gains(choices: list[tuning.Choice]) -> Table:
    """What was found, beside the default of this GPU."""
    names = ("key", "B×T×N", "default, µs", "best, µs", "gain", "launch", "left out")
    result = Table(f"fastest launches: {LAUNCH}", [Column(name, prose=name in PROSE) for name in names])
    for choice in choices:
        case, gain = choice.case, choice.gain
        result.add_row(
            str(choice.key),
            f"{case.batch}×{case.length}×{case.blocks}",
            "failed" if choice.default_ms is None else f"{1000 * choice.default_ms:.1f}",
            f"{1000 * choice.best_ms:.1f}",
            "-" if gain is None else f"{gain:.2f}×",
            _launch(choice.best) + (" (the default)" if choice.best == choice.default else ""),
            f"{len(choice.failed)} of {choice.tried}",
        )
    return result


def _show_in_use() -> None:
    """The measured defaults by compute capability, and the user's own entries by GPU."""
    from statemix.cli import tuning

    console, path = output(), table.user_file()
    for capability, rows in table.MEASURED.items():
        console.print(_defaults(".".join(map(str, capability)), rows))
    devices = tuning.read_devices(path)
    own = Table(f"your own: {visible(path)}", [Column(name, prose=True) for name in ("GPU", "key", "launch")])
    for device, entries in devices.items():
        for key, launch in entries.items():
            own.add_row(device, key, _launch(None if launch is None else table.Turns(*launch)))
    if own.rows:
        console.print(own)
    else:
        console.say(f"{path}: no entries of your own")
    console.print("Other GPUs, larger m: portable kernels.")


def _defaults(
    capability: str, rows: Mapping[tuple[str, str], Mapping[int, tuple[table.Turns, table.Turns]]]
) -> Table:
    names = ("recurrence", "direction", "m up to", f"lanes < {table.MANY}", "more lanes")
    result = Table(
        f"measured defaults, compute capability {capability}: {LAUNCH}",
        [Column(name, prose=True) for name in names],
    )
    for (kind, direction), entries in rows.items():
        for limit, (few, many) in entries.items():
            result.add_row(kind, direction, str(limit), _launch(few), _launch(many))
    return result
