"""`statemix experiment`: the tables and figures of the evidence, each one command."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli.console import output
from statemix.cli.errors import Failure, Interrupted
from statemix.cli.table import Column, Table
from statemix_research.cli.sweep_view import watching

if TYPE_CHECKING:
    from statemix_research.sweeps import Plan, Progress, Store
    from statemix_research.sweeps.store import Job


def experiment_names(incomplete: str) -> list[str]:
    """The experiments, for the shell's completion."""
    from statemix_research.sweeps import EXPERIMENTS

    return [name for name in EXPERIMENTS if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="An experiment that `statemix-research list` lists.",
        autocompletion=experiment_names,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="SETTING", help="key=value settings over every run, such as training.steps=50."),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help='"full", or "small" for a few minutes on two cores; default: what the store has, else full.'
    ),
]
Place = Annotated[Path, typer.Option("--store", help="The folder of all runs, shared by all experiments.")]
STORE = Path("runs/experiments")


def list_experiments() -> None:
    """List the experiments."""
    from statemix_research.sweeps import EXPERIMENTS

    table = Table("", [Column("experiment"), Column("what", prose=True), Column("presets")])
    for name, experiment in EXPERIMENTS.items():
        table.add_row(name, experiment.title, ", ".join(experiment.presets))
    output().print(table)


def run(
    name: Name,
    settings: Settings = None,
    preset: Annotated[str, typer.Option(help='"full", or "small": a few minutes on two cores.')] = "full",
    store: Place = STORE,
    workers: Annotated[
        int | None, typer.Option(help="Processes; default: one per GPU, else one per core.")
    ] = None,
    packed: Annotated[
        int | None,
        typer.Option(help="Trainings that a worker runs side by side; default: 8 on a GPU here, else 1."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler (tcp://…) instead of processes here."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VALUES",
            help='A part of the grid, such as "model=bdlru-4,lstm" or "seed=0"; several narrow it further.',
        ),
    ] = None,
    compilers: Annotated[
        int | None,
        typer.Option(
            help="Processes that compile ahead; default: cores beside the workers on a GPU, else 0."
        ),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="After these, save what is under way and leave.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed before.")] = False,
) -> None:
    """Run what an experiment still lacks. Killed or interrupted, the same command goes on where it was.

    The whole grid is checked before the first run. A run that is in the store, of whatever experiment, is not run
    again; one that failed is left alone without --retry.
    """
    from statemix_research import sweeps as experiments
    from statemix_research.sweeps import Store, executor_of, get_experiment, jobs_of, make_plan, run_all
    from statemix_research.sweeps.grid import describe

    plan = experiments.only(make_plan(get_experiment(name), preset, settings or []), only or [])
    place, jobs = Store(store), jobs_of(plan.cells)
    _tell_left_out(plan)
    if packed is None:
        packed = experiments.default_packed(scheduler)
    if compilers is None:
        compilers = experiments.default_compilers(scheduler)
    elif compilers and scheduler is not None:
        raise ValueError("compilers: a scheduler's workers compile for themselves, expected 0")
    until = _until(time_limit)
    alone = plan.experiment.alone
    executor = executor_of(1 if alone and scheduler is None else workers, scheduler)
    names = {cell.job.key: describe(cell.labels) for cell in plan.cells}
    try:
        with watching(plan.experiment.name, len(jobs), names) as watch:
            progress = run_all(
                jobs, place, executor, alone=alone, retry=retry, packed=packed, compilers=compilers, until=until,
                watch=watch,
            )  # fmt: skip
    except KeyboardInterrupt:
        over = "the time is over: " if time.monotonic() > until else ""
        raise Interrupted(f"{over}what was under way is saved; the same command goes on from there") from None
    executor.shutdown()
    damaged = _tell_damaged(place, progress)
    _tell_end(plan, place, [job for job in jobs if job.key not in progress.damaged], progress)
    if damaged:
        raise Failure(damaged)


def _until(minutes: float | None) -> float:
    """When a sweep that begins now has to end, on the monotonic clock."""
    if minutes is None:
        return math.inf
    if not minutes > 0:
        raise ValueError(f"time-limit: got {minutes:g}, expected minutes above 0")
    return time.monotonic() + 60 * minutes


def _tell_left_out(plan: Plan) -> None:
    for model, reason in plan.reasons.items():
        output().say(f"left out: {model}: {reason}")


def _tell_damaged(store: Store, progress: Progress) -> str:
    """The runs that have a damaged file; returns what to do about them, nothing without any."""
    from statemix.text import visible

    for key, damage in progress.damaged.items():
        output().print(visible(f"damaged: {store.folder(key)}: {damage}"), soft_wrap=True, markup=False)
    if not progress.damaged:
        return ""
    return (
        f"{len(progress.damaged)} of {progress.total} runs are damaged, and neither count as done nor were run again: "
        "put the files back, or remove a run's folder (or a measurement's file) and the same command makes it again"
    )


def _tell_end(plan: Plan, store: Store, jobs: Sequence[Job], progress: Progress) -> None:
    """How it ended; every failure with its traceback, and exit code 1 for any."""
    console = output()
    counts = ", ".join(f"{count} {status}" for status, count in progress.counts.items() if count)
    found = f" ({progress.found} found in the store)" if progress.found else ""
    console.say(f"{plan.experiment.name}, {plan.preset}: {counts}{found}; store {store.path}")
    failed = [(job, failure) for job in jobs if (failure := store.failure(job.key)) is not None]
    for job, failure in failed:
        console.say(f"failed: {store.folder(job.key)}: {failure['error']}")
        console.print(failure.get("traceback", failure["error"]).rstrip(), soft_wrap=True, style="dim")
    if failed:
        raise Failure(
            f"{len(failed)} of {len(jobs)} runs failed; the same command with --retry runs them again"
        )


def show(
    name: Name,
    settings: Settings = None,
    preset: Preset = None,
    store: Annotated[
        Path, typer.Option("--store", help="The folder of runs, or a file that `export` wrote.")
    ] = STORE,
    out: Annotated[
        Path | None, typer.Option(help="A Markdown page; the experiment's section in it is replaced.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="The folder of the figures (PNG); default: beside the page.")
    ] = None,
    checks: Annotated[
        Path | None,
        typer.Option(help="What `statemix rivals --out` wrote: it is put beside the rivals' numbers."),
    ] = None,
) -> None:
    """Write an experiment's tables and figures, beside the paper's numbers where it has some."""
    from statemix_research.paper.evidence import read_evidence, write_evidence
    from statemix_research.paper.evidence_checks import read_checks
    from statemix_research.sweeps import get_experiment

    evidence = read_evidence(get_experiment(name), store, preset, settings or [])
    if checks is not None:
        evidence = evidence._replace(checks=read_checks(checks))
    command = shlex.join(
        ["statemix", "experiment", "run", name, *evidence.settings, "--preset", evidence.preset]
    )
    text, drawn = write_evidence(evidence, command, out, figures)
    console = output()
    if out is None:
        console.print(text, soft_wrap=True)
    for path in [*([out] if out is not None else []), *drawn]:
        console.say(f"written: {path}")


def export(
    name: Name,
    settings: Settings = None,
    preset: Preset = None,
    store: Place = STORE,
    out: Annotated[Path | None, typer.Option(help="The file; default: benchmarks/paper/NAME.jsonl.")] = None,
) -> None:
    """Write all runs of an experiment into one compact file (JSON lines), which `show` reads too."""
    from statemix.cli.console import progress
    from statemix.text import visible
    from statemix_research.paper.evidence import plan_in_store
    from statemix_research.sweeps import Store, export, get_experiment, rows_of
    from statemix_research.sweeps.store import DAMAGED

    path = Path("benchmarks/paper") / f"{name}.jsonl" if out is None else out
    place = Store(store)
    plan = plan_in_store(get_experiment(name), place, preset, settings or [])
    rows: list[dict[str, Any]] = rows_of(plan, place)
    count = export(plan, rows, path)
    for error in dict.fromkeys(row["error"] for row in rows if row["status"] == DAMAGED):
        text = visible(f"damaged, left out: {place.path}: {error}")
        progress().print(text, soft_wrap=True, markup=False)
    if not count:
        raise Failure(f"{store} has no run of {name} ({plan.preset}): statemix-research run {name}")
    output().say(f"{count} of {len(rows)} cells: {path}")


def import_runs(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="A file that `export` wrote; one or several.")
    ],
    store: Place = STORE,
) -> None:
    """Put the runs of exported files into a store: they count as done, and `run` goes on with what is missing.

    Weights and curves are not in such files: a run that has to be measured on its weights is trained again.
    """
    from statemix_research.sweeps import Store, import_runs

    place = Store(store)
    for path in files:
        new, known, left_out = import_runs(path, place)
        output().say(
            f"{path}: {new} runs imported, {known} in the store already, {left_out} left out "
            "(failed, or not of this version's grid or this machine)"
        )
