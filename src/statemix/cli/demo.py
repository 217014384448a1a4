"""`statemix demo`: three small models on one task, and a page that compares them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from statemix.cli.console import output
from statemix.cli.lists import whole_numbers
from statemix.cli.live import train_live
from statemix.cli.tables import accuracies

if TYPE_CHECKING:
    from statemix.training import Config

DEMO_PRESETS = ("demo-diagonal", "demo-bdlru", "demo-hlru")


def demo(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SETTING", help="key=value settings for all three, such as training.steps=50."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the page and the runs.")] = Path("demo"),
    seeds: Annotated[str, typer.Option(help="Comma-separated; every model is trained once for each.")] = "0",
    picture: Annotated[Path | None, typer.Option(help="Draw the comparison here too, PNG or SVG.")] = None,
) -> None:
    """Train a diagonal layer, BD-LRU and H-LRU of one state size on the permutations of three things.

    Test accuracy is shown on sequences of the training length and longer. Ctrl-C saves; the same command goes on.
    """
    from statemix.report import check_picture, write_readme_picture, write_report
    from statemix.training import resolve_config

    if picture is not None:
        check_picture(picture)
    plan: dict[Path, Config] = {}
    for seed in whole_numbers("seeds", seeds):
        for preset in DEMO_PRESETS:
            overrides = [*(settings or []), f"training.seed={seed}"]
            plan[out / "runs" / f"{preset}-{seed}"] = resolve_config(preset, None, overrides)
    summaries = {folder.name: train_live(config, folder, folder.name) for folder, config in plan.items()}
    console = output()
    console.print(accuracies(summaries, training_length(next(iter(plan.values())))))
    page = write_report(list(plan), out)
    if picture is not None:
        write_readme_picture(list(plan), picture)
        console.say(f"picture: {picture}")
    console.say(f"report: {page}")


def training_length(config: Config) -> int:
    """The length that a configuration trains on: the task's option, or its default."""
    from statemix.tasks import get_task

    options = {key: value for key, value in config.task.items() if key != "name"}
    return get_task(config.task["name"], **options).length
