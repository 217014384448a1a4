"""A command line made of functions: each command with an example that works, and one way to end.

`Program(...).run(arguments)` is what `statemix`, `statemix-research` and `python -m benchmarks` call.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import typer
from typer.core import TyperCommand

import statemix
from statemix.cli import streams
from statemix.cli.errors import INTERRUPTED, OK
from statemix.cli.errors import report as report_error

Command = Callable[..., None]

Commands = Mapping[str, tuple[Command, str]]
"""Name -> the function and an example that works, in the order of the help."""


@dataclass(frozen=True)
class Program:
    """A command line, or the commands under one word of another (`groups`).

    name: as it is called. example: of the whole. default: what runs where no command is named, else the help. classes:
    of commands with more help than their docstrings. moved: commands of earlier versions: their name now, and where.
    """

    name: str
    help: str
    commands: Commands
    example: str
    groups: Mapping[str, Program] = field(default_factory=dict)
    default: Command | None = None
    classes: Mapping[Command, type[TyperCommand]] = field(default_factory=dict)
    moved: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def build(self, main: bool = True) -> typer.Typer:
        """The command line for typer; main: with the options of the whole."""
        app = typer.Typer(
            add_completion=main, rich_markup_mode=None, help=self.help, epilog=f"Example: {self.example}",
            invoke_without_command=self.default is not None, callback=self._options if main else self._run_default,
        )  # fmt: skip
        for name, (function, example) in self.commands.items():
            app.command(
                name, cls=self.classes.get(function, TyperCommand), epilog=f"Example: {example}",
                short_help=_sentence(function),
            )(function)  # fmt: skip
        for name, group in self.groups.items():
            app.add_typer(group.build(main=False), name=name)
        return app

    def _options(
        self,
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
        version: bool = typer.Option(False, "--version", help="Show the version."),
    ) -> None: ...

    def _run_default(self, context: typer.Context) -> None:
        if self.default is not None and context.invoked_subcommand is None:
            self.default()

    def run(self, arguments: list[str]) -> int:
        """Run one command and return its exit code; without any, show the help. `--debug` is understood anywhere."""
        debug = "--debug" in arguments
        words = [a for a in arguments if a != "--debug"] or ["--help"]
        if words[0] in self.moved:
            now, where = self.moved[words[0]]
            whole = " ".join([now, shlex.join(words[1:])]).rstrip()
            return report_error(ValueError(f"{self.name} {words[0]}: is now {whole} ({where})"), debug)
        command, code = typer.main.get_command(self.build()), OK
        try:
            if words[0] == "--version":
                print(f"{self.name} {statemix.__version__}")
            else:
                code = command.main(words, prog_name=self.name, standalone_mode=False)
            streams.flush()
        except typer.Abort:
            return report_error(KeyboardInterrupt(), debug)
        except BaseException as error:
            if hasattr(error, "format_message"):  # the parser's own: bad usage
                return report_error(ValueError(error.format_message()), debug=False)
            if isinstance(error, SystemExit) and not streams.is_broken_pipe(error):
                return error.code if isinstance(error.code, int) else OK  # the shell's completion is answered
            return report_error(error, debug)
        if code == INTERRUPTED:  # the parser catches Ctrl-C itself
            return report_error(KeyboardInterrupt(), debug)
        return code if isinstance(code, int) else OK


def _sentence(function: Command) -> str:
    """The first sentence of a command's help, whole, for the list of commands."""
    paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].partition("; exit code")[0].rstrip(".") + "."
