"""`statemix tasks`: the synthetic tasks, listed and shown."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from statemix.cli.console import Column, Table, output
from statemix.cli.streams import encodable
from statemix.tasks import SPLITS, TASKS, get_task


def complete_tasks(incomplete: str) -> list[str]:
    """For a shell: the tasks."""
    return [name for name in TASKS if name.startswith(incomplete)]


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
    from statemix.training import parse_override

    given: dict[str, object] = {}
    for item in options or []:
        given |= parse_override(item)
    task = get_task(name, **given)
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
