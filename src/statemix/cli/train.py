"""`statemix train`: one run, from a preset, a file and settings, into a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from statemix.cli.complete import settings_like
from statemix.cli.console import output
from statemix.cli.live import train_live
from statemix.cli.tables import accuracies


class TrainCommand(TyperCommand):
    """`train`, whose help ends with the presets and every setting."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """As wide as the terminal; generated from what the settings are made of."""
        from statemix.training import SUMMARIES, groups

        with formatter.section("Presets"):
            formatter.write_dl(list(SUMMARIES.items()))
        for group in groups():
            with formatter.section(f"Settings: {group.title}"):
                formatter.write_dl([(one.name, str(one)) for one in group.settings] or [("(none)", "")])
        super().format_epilog(ctx, formatter)


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING",
            help="A preset's name, then key=value settings over it.",
            autocompletion=settings_like,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="The run's folder; a run already there goes on.")] = Path(
        "runs/run"
    ),
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config", help="Print the resolved configuration as TOML for --config; train nothing."
        ),
    ] = False,
) -> None:
    """Train one model. Ctrl-C saves; the same command goes on from there.

    Settings read training.steps=500, mixer.block_size=4, task.n=4. They go over the file's, these over the preset's,
    and these over the defaults. Another task or mixer starts with its own defaults.
    """
    from statemix.training import resolve_config, to_toml

    preset, overrides = split_settings(settings or [])
    resolved = resolve_config(preset, config, overrides)
    if show_config:
        sys.stdout.write(to_toml(resolved))
        return
    summary = train_live(resolved, out, out.name)
    console = output()
    console.print(accuracies({out.name: summary}))
    console.say(f"run: {out}")


def split_settings(items: list[str]) -> tuple[str | None, list[str]]:
    """["demo-bdlru", "training.steps=5"] -> ("demo-bdlru", ["training.steps=5"]); the preset may be left out."""
    if items and "=" not in items[0]:
        return items[0], items[1:]
    return None, items
