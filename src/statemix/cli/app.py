"""The commands, assembled; one file each beside this one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import statemix
from statemix.cli import (
    bench,
    bench_train,
    demo,
    doctor,
    evaluate,
    experiment,
    report,
    rivals,
    streams,
    tasks,
    train,
    tune,
)
from statemix.cli.errors import BAD, INTERRUPTED, OK
from statemix.cli.errors import report as report_error
from statemix.text import visible

Command = Callable[..., None]

COMMANDS: dict[str, tuple[Command, str]] = {
    "demo": (demo.demo, "statemix demo --out demo --seeds 0"),
    "train": (train.train, "statemix train demo-bdlru training.steps=200 --out runs/first"),
    "eval": (evaluate.evaluate, "statemix eval runs/first --lengths 16,32,64"),
    "report": (report.report, "statemix report runs/first --out report"),
    "doctor": (doctor.doctor, "statemix doctor"),
    "rivals": (rivals.rivals, "statemix rivals --device cpu --out rivals.json"),
    "tune": (tune.tune, "statemix tune --list"),
}
"""Name -> the function and an example that works, in the order of the examples."""

TASKS: dict[str, tuple[Command, str]] = {
    "list": (tasks.list_tasks, "statemix tasks list"),
    "show": (tasks.show, "statemix tasks show parity length=12 --count 2"),
}
BENCHES: dict[str, tuple[Command, str]] = {
    "scan": (bench.scan, "statemix bench scan --shapes hlru:2 --sizes 2x64x8 --out scan.json"),
    "layer": (bench.layer, "statemix bench layer --dim 32 --batch 2 --length 9 --out layer.json"),
    "decode": (bench.decode, "statemix bench decode --layers hlru:4 --positions 1,99 --out d.json"),
    "train": (bench_train.train, "statemix bench train task.length=4 --steps 1 --packed 2"),
    "picture": (bench.picture, "statemix bench picture scan.json --out speed.png"),
    "report": (bench.report, "statemix bench report scan.json layer.json d.json --out speed.md"),
}

EXPERIMENTS: dict[str, tuple[Command, str]] = {
    "list": (experiment.list_experiments, "statemix experiment list"),
    "run": (experiment.run, "statemix experiment run fig3 --preset small"),
    "show": (experiment.show, "statemix experiment show fig3 --out results.md"),
    "export": (experiment.export, "statemix experiment export fig3 --out fig3.jsonl"),
    "import": (experiment.import_runs, "statemix experiment import fig3.jsonl --store runs/evidence"),
}


KINDS: dict[Command, type[TyperCommand]] = {train.train: train.TrainCommand}
"""Commands with a help of their own."""


def _group(
    commands: dict[str, tuple[Command, str]], *, add_completion: bool = False, **settings: Any
) -> typer.Typer:
    group = typer.Typer(add_completion=add_completion, rich_markup_mode=None, **settings)
    for name, (function, example) in commands.items():
        group.command(
            name,
            cls=KINDS.get(function, TyperCommand),
            epilog=f"Example: {example}",
            short_help=_sentence(function),
        )(function)
    return group


def _sentence(function: Command) -> str:
    """The first sentence of a command's help, whole, for the list of commands."""
    paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].partition("; exit code")[0].rstrip(".") + "."


def _version(wanted: bool) -> None:
    if wanted:
        print(f"statemix {statemix.__version__}")
        raise typer.Exit


def build() -> typer.Typer:
    """The whole command line."""
    app = _group(COMMANDS, epilog="Example: statemix demo", add_completion=True)
    task_group = _group(
        TASKS, help="The synthetic tasks, listed and shown.", epilog="Example: statemix tasks",
        invoke_without_command=True,
    )  # fmt: skip
    app.add_typer(task_group, name="tasks")
    bench_group = _group(
        BENCHES, help="Measure speed.", epilog="Example: statemix bench scan --shapes hlru:4 --repeats 3 --length 64",
        no_args_is_help=True,
    )  # fmt: skip
    app.add_typer(bench_group, name="bench")

    experiment_group = _group(
        EXPERIMENTS, help="The paper's tables and figures, each one command.",
        epilog="Example: statemix experiment list", no_args_is_help=True,
    )  # fmt: skip
    app.add_typer(experiment_group, name="experiment")

    @app.callback()
    def options(
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
        version: Annotated[
            bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
        ] = False,
    ) -> None:
        """Block-diagonal and higher-order linear recurrences for PyTorch."""

    @task_group.callback()
    def without_command(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            tasks.list_tasks()

    return app


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; without any, show the help. `--debug` is understood anywhere."""
    debug = "--debug" in arguments
    command = typer.main.get_command(build())
    try:
        code = command.main(
            [a for a in arguments if a != "--debug"] or ["--help"],
            prog_name="statemix",
            standalone_mode=False,
        )
        streams.flush()
    except typer.Abort:
        return report_error(KeyboardInterrupt(), debug)
    except BaseException as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # the parser's own, bad usage
            return _usage(error)
        if isinstance(error, SystemExit) and not streams.is_broken_pipe(error):
            return (
                error.code if isinstance(error.code, int) else OK
            )  # the shell's completion has been answered
        return report_error(error, debug)
    if code == INTERRUPTED:  # the parser catches Ctrl-C itself
        return report_error(KeyboardInterrupt(), debug)
    return code if isinstance(code, int) else OK


def _usage(error: Any) -> int:
    message = error.format_message()
    if "\n" in message:  # a group without a command: its help
        print(visible(message, keep="\n"), file=sys.stderr)
        return BAD
    return report_error(ValueError(message), debug=False)


__all__ = ["build", "run"]
