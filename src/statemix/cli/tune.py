"""`statemix tune`: benchmark launch configurations on this GPU and save the fastest, or list those in use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal

import torch
import typer

from statemix.cli.console import Column, Table, output, progress
from statemix.ops import launch as table

if TYPE_CHECKING:
    from statemix.cli.tuning import Choice, LaunchOrPortable

DEFAULT_SHAPES = "bdlru:1,bdlru:2,bdlru:3,bdlru:4,bdlru:8,bdlru:16,hlru:4,hlru:8,hlru:16"
DEFAULT_SIZES = "8x2048x1024,32x2048x1024"

PROSE = ("key", "launch", "failed")
"""Columns that may be wrapped."""

LAUNCH = "workers×warps · steps×stages · registers"


Dtype = Literal["bfloat16", "float16", "float32"]


def tune(
    shapes: Annotated[
        str, typer.Option(help="recurrence:m, comma-separated, or recurrence:m:N.")
    ] = DEFAULT_SHAPES,
    sizes: Annotated[str, typer.Option(help="BxTxH, comma-separated; H = N m channels.")] = DEFAULT_SIZES,
    dtype: Annotated[Dtype, typer.Option(help="Of gates and values.")] = "bfloat16",
    repeats: Annotated[int, typer.Option(help="Samples of each launch.")] = 15,
    threads: Annotated[
        int, typer.Option(help="Kernels compiled at a time; 0: as many as there are cores.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Benchmark, but save nothing.")] = False,
    show: Annotated[
        bool, typer.Option("--list", help="Show the launches in use; benchmark nothing.")
    ] = False,
) -> None:
    """Benchmark launch configurations on this GPU and save the fastest to your launch table.

    Every candidate and the portable kernels, forward and backward of every shape, each checked against float64 before
    it is timed. A size stands for all with as many lanes (few or many). Expect a minute or two per shape and size.
    The table is a JSON file that the kernels read when they are first used: $STATEMIX_LAUNCH_TABLE, else
    statemix/launch.json in the user's configuration.
    """
    from statemix.cli import tuning
    from statemix.training.progress import Progress

    if show:
        _show_in_use(table.read_user_file())
        return
    for name, value, least in (("repeats", repeats, 1), ("threads", threads, 0)):
        if value < least:
            raise ValueError(f"{name}: got {value}, expected at least {least}")
    wanted, path = tuning.parse_shapes(shapes, sizes), table.user_file()
    table.read_user_file()  # a damaged file is reported before the work
    device = tuning.check_gpu()
    settings = (getattr(torch, dtype), device, repeats, threads or os.cpu_count() or 1)
    choices: list[Choice] = []
    with Progress(True, "shapes tuned", 0, len(wanted)) as under_way:
        for number, shape in enumerate(wanted, start=1):
            gpu = tuning.Gpu(shape, *settings)
            found = [tuning.choose_best(gpu, direction) for direction in tuning.DIRECTIONS]
            choices += [choice for choice in found if choice is not None]
            for choice in filter(None, found):
                progress().say(f"{choice.key}: {_launch(choice.best)} of {choice.tried}")
            under_way.tell(number)
    output().print(_gains(choices))
    if dry_run:
        output().print("nothing was written (--dry-run)")
        return
    name = torch.cuda.get_device_name(device)
    output().say(f"{path}: {tuning.save(path, name, choices)} entries for {name}")


def _launch(launch: LaunchOrPortable) -> str:
    if launch is None:
        return "portable kernels"
    workers, warps, steps, stages, registers = launch
    return f"{workers}×{warps} · {steps}×{stages} · {registers}"


def _gains(choices: list[Choice]) -> Table:
    """The fastest launches beside the defaults of this GPU."""
    names = ("key", "B×T×N", "default, µs", "best, µs", "speed-up", "launch", "failed")
    result = Table(f"fastest launches: {LAUNCH}", [Column(name, prose=name in PROSE) for name in names])
    for choice in choices:
        usual = choice.default_ms
        result.add_row(
            str(choice.key),
            "×".join(map(str, choice.shape[2:])),
            "failed" if usual is None else f"{1000 * usual:.1f}",
            f"{1000 * choice.best_ms:.1f}",
            "-" if usual is None else f"{usual / choice.best_ms:.2f}×",
            _launch(choice.best) + (" (the default)" if choice.best == choice.default else ""),
            f"{len(choice.failed)} of {choice.tried}",
        )
    return result


def _show_in_use(devices: dict[str, dict[str, LaunchOrPortable]]) -> None:
    """The measured defaults by compute capability, and the user's own entries by GPU."""
    console, path = output(), table.user_file()
    names = ("GPU", "key", f"lanes < {table.MANY_LANES}", "more lanes")
    shown = Table(f"launches in use: {LAUNCH}", [Column(name, prose=True) for name in names])
    for capability, rows in table.MEASURED.items():
        gpu = f"compute capability {'.'.join(map(str, capability))}"
        for (kind, direction), entries in rows.items():
            for limit, launches in entries.items():
                shown.add_row(gpu, f"{kind} {direction} m ≤ {limit}", *map(_launch, launches))
    for device, choices in devices.items():
        for key, launch in choices.items():
            few = not key.endswith("lanes=many")
            shown.add_row(device, key, _launch(launch) if few else "", "" if few else _launch(launch))
    console.print(shown)
    console.say(f"{path}: {sum(map(len, devices.values())) or 'no'} entries")
    console.print("Other GPUs, larger m: portable kernels.")
