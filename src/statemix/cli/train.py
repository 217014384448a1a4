"""`statemix train`: one run, from a preset, a file and settings, into a folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from statemix.cli.console import Styled, output, progress
from statemix.cli.errors import Failure, Interrupted
from statemix.cli.table import Column, Table

if TYPE_CHECKING:
    from statemix.training import Config

SOLVED = 0.99
"""Accuracies from here on are green."""


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


def complete_settings(ctx: Any, incomplete: str) -> list[str]:
    """For a shell: presets, names of settings, and the tasks and mixers after task.name= and mixer.name=."""
    from statemix.nn import MIXERS
    from statemix.tasks import TASKS
    from statemix.training import PRESETS, groups

    words = [] if ctx.params.get("settings") else list(PRESETS)
    words += dict.fromkeys(f"{one.name}=" for group in groups() for one in group.settings)
    if "=" in incomplete:
        words += [f"task.name={task}" for task in TASKS] + [f"mixer.name={mixer}" for mixer in MIXERS]
    return [word for word in words if word.startswith(incomplete)]


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING",
            help="A preset's name, then key=value settings over it.",
            autocompletion=complete_settings,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="The run's folder; a run already there is resumed.")] = Path(
        "runs/run"
    ),
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config", help="Print the resolved configuration as TOML for --config; train nothing."
        ),
    ] = False,
) -> None:
    """Train one model. Ctrl-C saves a checkpoint; the same command resumes.

    Settings read training.steps=500, mixer.block_size=4, task.n=4. They override the file's, these the preset's, and
    these the defaults. Another task or mixer starts with its own defaults.
    """
    from statemix.training import resolve_config, to_toml

    words = settings or []
    preset = words[0] if words and "=" not in words[0] else None
    resolved = resolve_config(preset, config, words[1:] if preset is not None else words)
    if show_config:
        sys.stdout.write(to_toml(resolved))
        return
    summary = train_run(resolved, out, out.name)
    console = output()
    console.print(accuracies({out.name: summary}))
    console.say(f"run: {out}")


def train_run(config: Config, folder: Path, label: str) -> dict[str, Any]:
    """Train or resume a run with progress shown; returns its summary.

    Interrupted if a signal stopped it and it is saved; Failure if it diverged.
    """
    from statemix.training import train

    progress().say(f"training {label} in {folder}", style="dim")
    summary = train(config, folder, progress=True)
    if summary["status"] == "interrupted":
        raise Interrupted(f"saved at step {summary['step']}; the same command resumes")
    if summary["status"] == "diverged":
        raise Failure(f"{folder}: the loss is no longer finite at step {summary['step']}")
    return summary


def accuracies(summaries: Mapping[str, dict[str, Any]], training_length: int = 0) -> Table:
    """Test accuracy by length, a row per run; lengths also as multiples of the training length if it is given."""
    lengths = sorted({int(length) for summary in summaries.values() for length in summary["accuracy"]})
    names = [
        f"{length} ({length // training_length}×)"
        if training_length and not length % training_length
        else str(length)
        for length in lengths
    ]
    columns = [Column(name, number=True) for name in ("steps", "parameters", *names)]
    table = Table("test accuracy by length", [Column("run"), *columns])
    for name, summary in summaries.items():
        numbers = [percent(summary["accuracy"].get(str(length))) for length in lengths]
        table.add_row(name, str(summary["step"]), f"{summary['parameters']:,}", *numbers)
    return table


def percent(value: float | None) -> str | Styled:
    """An accuracy in green or red; a dash where there is none."""
    return "-" if value is None else Styled(f"{100 * value:.1f} %", "green" if value >= SOLVED else "red")
