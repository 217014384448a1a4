"""`statemix-research automata`: lists of runs on automata, trained many at a time, and what makes runs stall."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statemix.cli import Column, Table, output, progress
from statemix_research.automata.diagnosis import diagnose_experiment, draw
from statemix_research.automata.experiments import EXPERIMENTS, proved, read_rows, run_experiment, solved
from statemix_research.automata.training import TimeIsUp
from statemix_research.cli.baselines import device_named
from statemix_research.cli.sweeps import until_of

RESULTS = Path("research/results/hard_rows")


def automata(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]...", help="Lists of runs to train; none shows them."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to train: cpu, cuda, cuda:1; auto takes a GPU.")
    ] = "auto",
    out: Annotated[
        Path, typer.Option(help="Folder of the results, a file of JSON lines for each list.")
    ] = RESULTS,
    only: Annotated[
        list[str] | None, typer.Option(help='Train these populations alone, as "no_mlp + balance".')
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option(help="Train the populations that begin with these seeds alone.")
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Minutes after which to save all and leave; the same command goes on."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the page of all results, its figure and data into this folder.")
    ] = None,
) -> None:
    """Train lists of runs, populations that are in the results left out; without names, show the lists and results."""
    until = until_of(time_limit)
    if names:
        out.mkdir(parents=True, exist_ok=True)
    for name in names or ():
        where, file = str(device_named(device)), out / f"{name}.jsonl"
        try:
            run_experiment(
                name, file, device=where, only=only or (), seeds=seeds or (), told=progress().say, until=until
            )
        except TimeIsUp as where_it_stands:
            output().say(f"{name}: the time is up at {where_it_stands}; the same command goes on")
            break
    if page is not None:
        from statemix_research.automata.report import write_page

        for path in write_page(out, page):
            output().say(f"wrote {path}")
    if names or page is None:
        output().print(_results(names, out) if names else _lists(out))


def diagnosis(
    name: Annotated[str, typer.Argument(help="The list whose words and settings are trained.")] = "screen_s4",
    seeds: Annotated[int, typer.Option(help="Runs to train.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps to train for.")] = 400,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("research/notes/hard-rows.svg"),
) -> None:
    """Train some runs on the CPU and draw a solved one beside a stalled one."""
    found = diagnose_experiment(name, seeds, steps)
    shown = [
        next((run for run in found if (run["solved"] is None) is stalled), None) for stalled in (False, True)
    ]
    draw([run for run in shown if run is not None], out)
    names = ("seed", "solved", "accuracy", "copied", "taken", "permuting", "colliding")
    table = Table("shares of rows and of maps (a block at a token)", [Column(column) for column in names])
    for run in found:
        table.add_row(*(_text(run[column]) for column in names))
    output().print(table)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value if value is not None else "–")


def _lists(out: Path) -> Table:
    table = Table(
        "lists of runs", [Column("name"), Column("runs"), Column("in results"), Column("what", prose=True)]
    )
    for name, experiment in EXPERIMENTS.items():
        done = len(read_rows(out / f"{name}.jsonl"))
        table.add_row(name, str(experiment.seeds * len(experiment.remedies)), str(done), experiment.summary)
    return table


def _results(names: list[str], out: Path) -> Table:
    heads = ("list", "remedies", "solved", "proved", "first at step", "accuracy", "best", "at other lengths")
    table = Table("results", [Column(head) for head in heads])
    for name in names:
        rows = read_rows(out / f"{name}.jsonl")
        for label in dict.fromkeys(row["remedies"] for row in rows):
            those = [row for row in rows if row["remedies"] == label]
            steps = sorted(row["solved"] for row in those if row["solved"] is not None)
            lengths, first = those[0]["at"], f"{steps[0]}–{steps[-1]}" if steps else "–"
            table.add_row(
                name, label, solved(those), proved(those), first,
                *(f"{sum(row[key] for row in those) / len(those):.4f}" for key in ("accuracy", "best")),
                ", ".join(f"{n}: {min(row['at'][n] for row in those):.6f} at least" for n in lengths) or "–",
            )  # fmt: skip
    return table
