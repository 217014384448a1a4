"""The commands about experiments: the tables and figures of the paper, each one command."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli import Column, Failure, Interrupted, Table, output, progress
from statemix.text import visible

if TYPE_CHECKING:
    from statemix_research.sweeps import Plan, Progress, Store
    from statemix_research.sweeps.store import Job


def experiment_names(incomplete: str) -> list[str]:
    """The experiments, for the shell's completion."""
    from statemix_research.paper.experiments import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


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
    typer.Argument(metavar="SETTING", help="key=value settings for every run, such as training.steps=50."),
]
Preset = Annotated[
    str | None,
    typer.Option(help='"full", or "small" for minutes on two cores; default: what the store has, else full.'),
]
Place = Annotated[Path, typer.Option("--store", help="The folder of all runs, shared by all experiments.")]
Source = Annotated[Path, typer.Option("--store", help="The folder of runs, or a file that `export` wrote.")]
STORE = Path("runs/experiments")
RESULTS = Path("research/results")


def list_experiments() -> None:
    """List the experiments."""
    from statemix_research.paper.experiments import EXPERIMENTS

    table = Table("", [Column("experiment"), Column("what", prose=True), Column("presets")])
    for name, experiment in EXPERIMENTS.items():
        table.add_row(name, experiment.title, ", ".join(experiment.presets))
    output().print(table)


def run(
    name: Name,
    settings: Settings = None,
    preset: Annotated[str, typer.Option(help='"full", or "small": minutes on two cores.')] = "full",
    store: Place = STORE,
    workers: Annotated[
        int | None, typer.Option(help="Processes; default: one per GPU, else one per core.")
    ] = None,
    packed: Annotated[
        int | None, typer.Option(help="Trainings side by side in each worker; default: 8 on a GPU, else 1.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="A Dask scheduler (tcp://…) instead of processes on this machine."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=VALUES",
            help='A part of the grid, such as "model=bdlru-4,lstm" or "seed=0"; several narrow it further.',
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="Checkpoint all active runs and exit after these minutes."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed runs again.")] = False,
) -> None:
    """Run what an experiment still lacks. Killed or interrupted, the same command goes on where it was.

    The whole grid is checked before the first run. A run that is in the store, of whatever experiment, is not run
    again; one that failed is left alone without --retry.
    """
    from statemix_research import sweeps
    from statemix_research.cli.watch import watching
    from statemix_research.paper.experiments import get_experiment
    from statemix_research.sweeps.grid import describe

    experiment = get_experiment(name)
    plan = sweeps.only(sweeps.make_plan(experiment, preset, settings or []), only or [])
    place, jobs = sweeps.Store(store), sweeps.jobs_of(plan.cells)
    for model, reason in plan.reasons.items():
        output().say(f"skipped: {model}: {reason}")
    until = until_of(time_limit)
    is_local_timing = experiment.is_timing and scheduler is None
    executor = sweeps.executor_of(1 if is_local_timing else workers, scheduler)
    names = {cell.job.key: describe(cell.labels) for cell in plan.cells}
    try:
        with watching(name, len(jobs), names) as watch:
            ended = sweeps.run_all(
                jobs, place, executor, alone=experiment.is_timing, retry=retry, until=until, watch=watch,
                packed=sweeps.default_packed(scheduler) if packed is None else packed,
            )  # fmt: skip
    except KeyboardInterrupt:
        over = "the time limit is over: " if time.monotonic() > until else ""
        raise Interrupted(f"{over}all active runs are saved; the same command goes on from there") from None
    executor.shutdown()
    damaged = _tell_damaged(place, ended)
    _tell_end(plan, place, [job for job in jobs if job.key not in ended.damaged], ended)
    if damaged:
        raise Failure(damaged)


def until_of(minutes: float | None) -> float:
    """When what begins now has to end, on the monotonic clock. ValueError for minutes that are not above 0."""
    if minutes is None:
        return math.inf
    if not minutes > 0:
        raise ValueError(f"time-limit: got {minutes:g}, expected minutes above 0")
    return time.monotonic() + 60 * minutes


def _tell_damaged(store: Store, ended: Progress) -> str:
    """The runs that have a damaged file; returns what to do about them, nothing without any."""
    for key, damage in ended.damaged.items():
        output().print(visible(f"damaged: {store.folder(key)}: {damage}"), soft_wrap=True, markup=False)
    if not ended.damaged:
        return ""
    return (
        f"{len(ended.damaged)} of {ended.total} runs are damaged, and neither count as done nor were run again: "
        "put the files back, or remove a run's folder (or a probe's file) and the same command makes it again"
    )


def _tell_end(plan: Plan, store: Store, jobs: Sequence[Job], ended: Progress) -> None:
    """How it ended; every failure with its traceback, and exit code 1 for any."""
    console = output()
    counts = ", ".join(f"{count} {status}" for status, count in ended.counts.items() if count)
    found = f" ({ended.found} found in the store)" if ended.found else ""
    console.say(f"{plan.experiment}, {plan.preset}: {counts}{found}; store {store.path}")
    failed = [(job, failure) for job in jobs if (failure := store.failure(job.key)) is not None]
    for job, failure in failed:
        console.say(f"failed: {store.folder(job.key)}: {failure['error']}")
        console.print(failure.get("traceback", failure["error"]).rstrip(), soft_wrap=True, style="dim")
    if failed:
        raise Failure(
            f"{len(failed)} of {len(jobs)} runs failed; the same command with --retry runs them again"
        )


def show(name: Name, settings: Settings = None, preset: Preset = None, store: Source = STORE) -> None:
    """Print an experiment's tables, and where the numbers come from, in Markdown."""
    from statemix_research.paper.experiments import get_experiment
    from statemix_research.paper.pages import page_lines
    from statemix_research.paper.source import read_results

    results = read_results(get_experiment(name), store, preset, settings or [])
    output().print("\n".join(page_lines(results)), soft_wrap=True, markup=False)


def paper(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Some experiments; default: all.", autocompletion=experiment_names
        ),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A setting that the runs were made with.")
    ] = None,
    preset: Preset = None,
    store: Annotated[
        Path, typer.Option("--store", help="A folder of runs, or of files NAME.jsonl that `export` wrote.")
    ] = RESULTS,
    out: Annotated[Path, typer.Option(help="The folder of the pages.")] = Path("docs/reproduce"),
) -> None:
    """Build the pages: for each experiment its figures, tables and data, and one page of the paper's claims."""
    from statemix_research.paper.experiments import EXPERIMENTS, get_experiment
    from statemix_research.paper.pages import claims_page, empty_page, write_file, write_page
    from statemix_research.paper.source import read_results

    every, exported = [], any(store.glob("*.jsonl"))
    for experiment in map(get_experiment, names or EXPERIMENTS):
        source = store / f"{experiment.name}.jsonl" if exported else store
        if source.exists() or names:
            every.append(read_results(experiment, source, preset, setting or []))
            paths = write_page(every[-1], out)
        else:
            paths = [out / f"{experiment.name}.md"]
            write_file(paths[0], empty_page(experiment).encode())
        output().say(f"written: {', '.join(map(str, paths))}")
    if not names:
        write_file(out / "claims.md", claims_page(every).encode())
        output().say(f"written: {out / 'claims.md'}")


def export(
    name: Name,
    settings: Settings = None,
    preset: Preset = None,
    store: Place = STORE,
    out: Annotated[Path | None, typer.Option(help="The file; default: research/results/NAME.jsonl.")] = None,
) -> None:
    """Write all runs of an experiment into one compact file (JSON lines), which `show` and `paper` read too."""
    from statemix_research.paper.experiments import get_experiment
    from statemix_research.paper.source import plan_in_store
    from statemix_research.sweeps import Store, rows_of
    from statemix_research.sweeps import export as write_export
    from statemix_research.sweeps.store import DAMAGED

    path = RESULTS / f"{name}.jsonl" if out is None else out
    place = Store(store)
    plan = plan_in_store(get_experiment(name), place, preset, settings or [])
    rows: list[dict[str, Any]] = rows_of(plan, place)
    count = write_export(plan, rows, path)
    for error in dict.fromkeys(row["error"] for row in rows if row["status"] == DAMAGED):
        text = visible(f"damaged, left out: {place.path}: {error}")
        progress().print(text, soft_wrap=True, markup=False)
    if not count:
        raise Failure(f"{store} has no run of {name} ({plan.preset}): statemix-research run {name}")
    output().say(f"{count} of {len(rows)} cells: {path}")


def import_files(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files that `export` wrote.")],
    store: Place = STORE,
) -> None:
    """Put the runs of exported files into a store: they count as done, and `run` goes on with what is missing.

    Weights and curves are not in such files: a run whose weights have to be probed is trained again.
    """
    from statemix_research.paper.experiments import get_experiment
    from statemix_research.sweeps import Store, import_runs

    for path in files:
        new, known, left_out = import_runs(path, Store(store), get_experiment)
        output().say(
            f"{path}: {new} runs imported, {known} in the store already, {left_out} left out "
            "(failed, or not of this version's grid or this machine)"
        )
