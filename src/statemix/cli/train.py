"""`statemix train`: one run, from a preset, a file and settings, into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemix.cli.console import output
from statemix.cli.live import train_live
from statemix.cli.tables import accuracies


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="SETTING", help="A preset's name, then key=value settings over it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="The run's folder; a run already there goes on.")] = Path(
        "runs/run"
    ),
) -> None:
    """Train one model. Ctrl-C saves; the same command goes on from there.

    Settings read training.steps=500, mixer.block_size=4, task.n=4. Presets: demo-diagonal, demo-bdlru, demo-hlru,
    mad-bdlru, mad-hlru.
    """
    from statemix.training import resolve_config

    preset, overrides = split_settings(settings or [])
    summary = train_live(resolve_config(preset, config, overrides), out, out.name)
    console = output()
    console.print(accuracies({out.name: summary}))
    console.print(f"run: {out}", soft_wrap=True)


def split_settings(items: list[str]) -> tuple[str | None, list[str]]:
    """["demo-bdlru", "training.steps=5"] -> ("demo-bdlru", ["training.steps=5"]); the preset may be left out."""
    if items and "=" not in items[0]:
        return items[0], items[1:]
    return None, items
