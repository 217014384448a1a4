"""`statemix bench train`: how long a training step of a small model takes, alone and side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import tables
from benchmarks.cli import Device, Out, Repeats, command, fail_if_any, tell
from benchmarks.clock import check_repeats, resolve_device
from benchmarks.files import write_json
from statemix.cli.console import output, progress

DEFAULT = ("task.name=selective_copying",)


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="SETTING", help="key=value settings over the preset's; T is task.length."),
    ] = None,
    preset: Annotated[str, typer.Option(help="The preset of the measured run.")] = "mad-bdlru",
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 5,
    steps: Annotated[int, typer.Option(help="Steps of one sample.")] = 200,
    packed: Annotated[str, typer.Option(help="Runs side by side, comma-separated.")] = "1,2,4,8,16",
) -> None:
    """Time training steps: launched one by one, captured as a CUDA graph, compiled and captured, and packed.

    Without settings: two BD-LRU layers of 64 blocks of 4 and two SwiGLUs, width 128, batch 128, T = 256.
    """
    from benchmarks import training

    place = resolve_device(device)
    check_repeats(repeats)
    if steps < 1:
        raise ValueError(f"steps: got {steps}, expected at least 1")
    setting = training.Setting(tuple(settings or DEFAULT), preset, place, steps, repeats)
    counts = _counts(packed)
    training.config_of(setting, 0, "off")  # what is wrong with it is said at once
    rows: dict[str, list[dict[str, Any]]] = {}

    def save(out: Path | None = out) -> dict[str, Any]:
        record = training.record(rows, setting=setting, command=command())
        if out is not None:
            write_json(out, record)
        return record

    for kind, row in training.run(setting, counts):
        rows.setdefault(kind, []).append(row)
        save()
        progress().say(tables.one_step(row))
    for table in tables.training(save()):
        output().print(table)
    tell(out)
    fail_if_any([row for group in rows.values() for row in group])


def _counts(text: str) -> list[int]:
    """ "1,2,4" -> [1, 2, 4]; an empty text is none. ValueError for anything but whole numbers from 1 on."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) >= 1 for word in words):
        raise ValueError(f"packed: got {text!r}, expected whole numbers such as 1,2,4")
    return [int(word) for word in words]
