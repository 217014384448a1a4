"""`statemix tasks`: the synthetic tasks, listed and shown."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from statemix.cli.console import output
from statemix.cli.streams import encodable
from statemix.cli.table import Column, Table
from statemix.tasks import SPLITS, TASKS, get_task


def complete_tasks(incomplete: str) -> list[str]:
    """For a shell: the tasks."""
    return [name for name in TASKS if name.startswith(incomplete)]


def parse_value(text: str) -> object:
    """A value from the command line: a whole number, a float, true or false, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_options(items: list[str]) -> dict[str, object]:
    """["length=16", ...] -> {"length": 16, ...}; ValueError for an item without "="."""
    options: dict[str, object] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ValueError(f"option: got {item!r}, expected key=value")
        options[key] = parse_value(value)
    return options


def list_tasks() -> None:
    """List every task."""
    columns = [Column("task"), Column("length", number=True), Column("symbols", number=True), Column("model")]
    table = Table("", [*columns, Column("target", prose=True)])
    for name, kind in TASKS.items():
        task = get_task(name)
        table.add_row(name, str(task.length), str(task.vocab_size), task.backbone, kind.summary)
    output().print(table)


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A task that `statemix tasks` lists.", autocompletion=complete_tasks
        ),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="OPTION", help="key=value options of the task.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many instances.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the instances.")] = 0,
    split: Annotated[str, typer.Option(help=", ".join(SPLITS))] = "test",
) -> None:
    """Show a task: its options, whether splits overlap, and a few instances with their answers."""
    task = get_task(name, **parse_options(options or []))
    examples = task.generate(count, seed=seed, split=split)
    console = output()
    console.say(name, style="bold")
    console.say(task.summary)
    for key, value in task.options.items():
        option = task.OPTIONS[key]
        console.say(f"{key}={value}: {option.meaning} ({option.expected()})", style="dim")
    console.say(task.overlap, style="dim")
    for inputs, targets in zip(examples.inputs, examples.targets, strict=True):
        console.print()
        pieces = ((encodable(text, console.encoding), style) for text, style in task.render(inputs, targets))
        console.print(Text.assemble(*pieces))
