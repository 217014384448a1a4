"""`statemix demo`: three small models on one task, and a page that compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemix.cli.console import output
from statemix.cli.runs import whole_numbers
from statemix.cli.train import accuracies, train_run

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

    Shows the test accuracy at the training length and beyond. Ctrl-C saves a checkpoint; the same command resumes.
    """
    from statemix.report import check_picture, write_readme_picture, write_report
    from statemix.tasks import get_task
    from statemix.training import resolve_config

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
    task = dict(next(iter(plan.values())).task)
    console = output()
    console.print(accuracies(summaries, get_task(task.pop("name"), **task).length))
    page = write_report(list(plan), out)
    if picture is not None:
        write_readme_picture(list(plan), picture)
        console.say(f"picture: {picture}")
    console.say(f"report: {page}")
