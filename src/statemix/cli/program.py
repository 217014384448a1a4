"""A command line made of functions: each command with an example that works, and one way to end.

`Program(...).run(arguments)` is what `statemix`, `statemix-research` and `python -m benchmarks` call.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
class Group:
    """Commands under one word; `default` runs when none is named."""

    help: str
    commands: Commands
    example: str
    default: Command


@dataclass(frozen=True)
class Program:
    """A command line: its name as it is called, what it is, its commands, and what old commands are called now."""

    name: str
    help: str
    commands: Commands
    example: str
    groups: Mapping[str, Group] = field(default_factory=dict)
    classes: Mapping[Command, type[TyperCommand]] = field(default_factory=dict)
    moved: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def build(self) -> typer.Typer:
        """The whole command line, for typer."""
        app = self._app(self.commands, epilog=f"Example: {self.example}", add_completion=True)
        for name, group in self.groups.items():
            app.add_typer(self._subcommands(group), name=name)

        @app.callback(help=self.help)
        def options(
            debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
            version: bool = typer.Option(
                False, "--version", callback=self._version, is_eager=True, help="Show the version."
            ),
        ) -> None:
            pass

        return app

    def _subcommands(self, group: Group) -> typer.Typer:
        epilog = f"Example: {group.example}"
        app = self._app(group.commands, help=group.help, epilog=epilog, invoke_without_command=True)

        @app.callback()
        def without_command(context: typer.Context) -> None:
            if context.invoked_subcommand is None:
                group.default()

        return app

    def _app(self, commands: Commands, *, add_completion: bool = False, **settings: Any) -> typer.Typer:
        app = typer.Typer(add_completion=add_completion, rich_markup_mode=None, **settings)
        for name, (function, example) in commands.items():
            app.command(
                name, cls=self.classes.get(function, TyperCommand), epilog=f"Example: {example}",
                short_help=_sentence(function),
            )(function)  # fmt: skip
        return app

    def _version(self, wanted: bool) -> None:
        if wanted:
            print(f"{self.name} {statemix.__version__}")
            raise typer.Exit

    def run(self, arguments: list[str]) -> int:
        """Run one command and return its exit code; without any, show the help. `--debug` is understood anywhere."""
        debug = "--debug" in arguments
        words = [a for a in arguments if a != "--debug"] or ["--help"]
        if words[0] in self.moved:
            now, where = self.moved[words[0]]
            whole = " ".join([now, shlex.join(words[1:])]).rstrip()
            return report_error(ValueError(f"{self.name} {words[0]}: is now {whole} ({where})"), debug)
        command = typer.main.get_command(self.build())
        try:
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
