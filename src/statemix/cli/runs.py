"""`statemix train`, `demo`, `eval` and `report`: runs are trained, evaluated and described."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from statemix.cli.console import Column, Styled, Table, output, progress
from statemix.cli.errors import Failure, Interrupted
from statemix.text import visible

if TYPE_CHECKING:
    from statemix.training import Config

SOLVED = 0.99
"""Accuracies from here on are green."""

DEMO_PRESETS = ("demo-diagonal", "demo-bdlru", "demo-hard")


class TrainCommand(TyperCommand):
    """`train`, whose help ends with the presets and every setting."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """As wide as the terminal; generated from what the settings are made of."""
        from statemix.training import SUMMARIES, groups

        with formatter.section("Presets"):
            formatter.write_dl(list(SUMMARIES.items()))
        for title, settings in groups().items():
            with formatter.section(f"Settings: {title}"):
                formatter.write_dl([(one.name, str(one)) for one in settings] or [("(none)", "")])
        super().format_epilog(ctx, formatter)


def complete_settings(ctx: Any, incomplete: str) -> list[str]:
    """For a shell: presets, names of settings, and the tasks and mixers after task.name= and mixer.name=."""
    from statemix.nn import MIXERS
    from statemix.tasks import TASKS
    from statemix.training import PRESETS, groups

    words = [] if ctx.params.get("settings") else list(PRESETS)
    words += dict.fromkeys(f"{one.name}=" for settings in groups().values() for one in settings)
    if "=" in incomplete:
        words += [f"task.name={task}" for task in TASKS] + [f"mixer.name={mixer}" for mixer in MIXERS]
    return [word for word in words if word.startswith(incomplete)]


SETTING: Any = typer.Argument(
    metavar="SETTING",
    help="A preset's name, then key=value settings over it.",
    autocompletion=complete_settings,
)
SHOW: Any = typer.Option(
    "--show-config", help="Print the resolved configuration as TOML for --config; train nothing."
)


def train(
    settings: Annotated[list[str] | None, SETTING] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings, over the preset's.")] = None,
    out: Annotated[Path, typer.Option(help="The run's folder; a run already there is resumed.")] = Path(
        "runs/run"
    ),
    show_config: Annotated[bool, SHOW] = False,
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
    output().print(accuracies({out.name: summary}))
    output().say(f"run: {out}")


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
    columns = [Column("run"), Column("steps", number=True), Column("parameters", number=True)]
    for length in lengths:
        times, rest = divmod(length, training_length or length + 1)
        columns.append(Column(str(length) if rest else f"{length} ({times}×)", number=True))
    table = Table("test accuracy by length", columns)
    for name, summary in summaries.items():
        numbers = [percent(summary["accuracy"].get(str(length))) for length in lengths]
        table.add_row(name, str(summary["step"]), f"{summary['parameters']:,}", *numbers)
    return table


def percent(value: float | None) -> str | Styled:
    """An accuracy in green or red; a dash where there is none."""
    return "-" if value is None else Styled(f"{100 * value:.1f} %", "green" if value >= SOLVED else "red")


FOR_ALL: Any = typer.Argument(
    metavar="SETTING", help="key=value settings for all three, such as training.steps=50."
)


def demo(
    settings: Annotated[list[str] | None, FOR_ALL] = None,
    out: Annotated[Path, typer.Option(help="The folder of the page and the runs.")] = Path("demo"),
    seeds: Annotated[str, typer.Option(help="Comma-separated; every model is trained once for each.")] = "0",
    picture: Annotated[Path | None, typer.Option(help="Draw the comparison here too, PNG or SVG.")] = None,
) -> None:
    """Train a diagonal layer, BD-LRU and BD-LRU with hard rows, of one state size, on the permutations of four things.

    Shows the test accuracy from the training length to 4096 times of it. Ctrl-C saves a checkpoint; the same command
    resumes.
    """
    from statemix.report import check_picture, write_readme_picture, write_report
    from statemix.training import build_task, resolve_config

    if picture is not None:
        check_picture(picture)
    plan = {
        out / "runs" / f"{preset}-{seed}": resolve_config(
            preset, None, [*(settings or []), f"training.seed={seed}"]
        )
        for seed in whole_numbers("seeds", seeds)
        for preset in DEMO_PRESETS
    }
    summaries = {folder.name: train_run(config, folder, folder.name) for folder, config in plan.items()}
    output().print(accuracies(summaries, build_task(next(iter(plan.values()))).length))
    page = write_report(list(plan), out)
    if picture is not None:
        output().say(f"picture: {write_readme_picture(list(plan), picture)}")
    output().say(f"report: {page}")


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
    table = Table(f"test split, {folder}", [Column(name, number=True) for name in names])
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", RuntimeWarning)
        results = evaluate_run(folder, chosen, examples)
    for note in notes:
        print(f"note: {visible(note.message)}", file=sys.stderr)
    for length, scores in results.items():
        accuracy, macro = percent(scores["accuracy"]), percent(scores["macro_accuracy"])
        table.add_row(str(length), accuracy, macro, f"{scores['loss']:.4f}")
    output().print(table)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The folder of the page and its figures.")] = Path("report"),
) -> None:
    """Write a self-contained page, with figures, about one or more runs."""
    from statemix.report import write_report

    output().say(f"report: {write_report(runs, out)}")


def whole_numbers(name: str, text: str) -> list[int]:
    """ "16,32" -> [16, 32], without repetitions. ValueError naming the option."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}: got {text!r}, expected whole numbers such as 0,1,2")
    return list(dict.fromkeys(int(part) for part in parts))
