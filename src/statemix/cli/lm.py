"""`statemix lm`: language models are trained on packs of text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from statemix.cli.console import Column, Table, output, progress
from statemix.cli.errors import Failure, Interrupted

GIGA = 1e9


class TrainCommand(TyperCommand):
    """`lm train`, whose help ends with every setting."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """As wide as the terminal; generated from what the settings are made of."""
        from statemix.lm.config import settings

        for title, lines in settings().items():
            with formatter.section(f"Settings: {title}"):
                formatter.write_dl([(one.name, str(one)) for one in lines])
        super().format_epilog(ctx, formatter)


def complete_presets(incomplete: str) -> list[str]:
    """For a shell: the names of presets."""
    from statemix.lm.presets import LM_PRESETS

    return [name for name in LM_PRESETS if name.startswith(incomplete)]


def complete_settings(incomplete: str) -> list[str]:
    """For a shell: the names of settings."""
    from statemix.lm.config import settings

    words = (f"{one.name}=" for lines in settings().values() for one in lines)
    return [word for word in words if word.startswith(incomplete)]


SETTING: Any = typer.Argument(
    metavar="SETTING", help="key=value settings over the preset's.", autocompletion=complete_settings
)
PRESET: Any = typer.Option(help="A name of `statemix lm list`.", autocompletion=complete_presets)
OUT: Any = typer.Option(help="The run's folder; a run already there is resumed. runs/PRESET if left out.")
SHOW: Any = typer.Option(
    "--show-config", help="Print the resolved configuration as TOML for --config; train nothing."
)


def list_presets() -> None:
    """List the presets."""
    from statemix.lm.presets import LM_PRESETS

    columns = [
        Column("preset"),
        Column("mixer", prose=True),
        *(Column(name, number=True) for name in NUMBERS),
    ]
    table = Table("", columns)
    for name, preset in LM_PRESETS.items():
        mixer = " ".join(
            str(value) if key == "name" else f"{key}={value}" for key, value in preset["mixer"].items()
        )
        table.add_row(name, mixer, *preset_numbers(preset))
    output().print(table)


NUMBERS = ("width", "layers", "length", "tokens a step", "tokens")


def preset_numbers(preset: dict[str, Any]) -> list[str]:
    """The numbers of a preset's row."""
    model, length, training = preset["model"], preset["data"]["length"], preset["training"]
    step = training["batch_size"] * length
    total = step * training["steps"]
    tokens = f"{total / GIGA:.2f} B" if total >= GIGA else f"{total / 1e6:.1f} M"
    return [str(model["dim"]), str(model["depth"]), str(length), f"{step:,}", tokens]


def train(
    settings: Annotated[list[str] | None, SETTING] = None,
    preset: Annotated[str, PRESET] = "tiny",
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset's.")] = None,
    out: Annotated[Path | None, OUT] = None,
    show_config: Annotated[bool, SHOW] = False,
) -> None:
    """Train a language model on a pack of text. Ctrl-C saves a checkpoint; the same command resumes.

    Settings read data.pack=packs/stdlib, training.steps=500, mixer.block_size=4. Under torchrun the same command trains
    on several processes: training.sharding=ddp copies the model to each, fsdp shards it.
    """
    from statemix.lm import resolve_lm_config
    from statemix.training import to_toml

    resolved = resolve_lm_config(preset, config, settings or [])
    if show_config:
        sys.stdout.write(to_toml(resolved))
        return
    folder = Path("runs") / preset if out is None else out
    summary = train_run(resolved, folder)
    if summary["first"]:
        output().print(results(summary))
        output().say(f"run: {folder}")


def train_run(resolved: Any, folder: Path) -> dict[str, Any]:
    """Train or resume with progress shown. Interrupted if a signal stopped it; Failure if it diverged."""
    from statemix.lm import train_language_model
    from statemix.lm.processes import is_first

    if is_first():
        progress().say(f"training {resolved.name} in {folder}", style="dim")
    summary = train_language_model(resolved, folder, progress=True)
    if summary["status"] == "interrupted":
        raise Interrupted(f"saved at step {summary['step']}; the same command resumes")
    if summary["status"] == "diverged":
        raise Failure(f"{folder}: no step has had a finite gradient for long, at step {summary['step']}")
    return {**summary, "first": is_first()}


RESULTS = {
    "held-out loss": ("loss", "{:.4f}"),
    "bits per byte": ("bits_per_byte", "{:.4f}"),
    "parameters": ("parameters", "{:,}"),
    "tokens": ("tokens", "{:,}"),
    "tokens/s": ("tokens_per_second", "{:,.0f}"),
    "MFU": ("mfu", "{:.1%}"),
    "memory": ("memory_gb", "{:.2f} GB"),
    "spikes": ("spikes", "{}"),
    "skipped steps": ("skipped", "{}"),
}
"""What is shown at the end: the name, the entry of the summary, and its format."""


def results(summary: dict[str, Any]) -> Table:
    """The summary of a run that is over."""
    table = Table(f"after {summary['step']} steps", [Column("measure"), Column("value", number=True)])
    for name, (key, form) in RESULTS.items():
        table.add_row(name, "-" if summary[key] is None else form.format(summary[key]))
    return table
