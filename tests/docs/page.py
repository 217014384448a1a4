"""Runs pages of the documentation as a reader would: `python -m tests.docs.page PAGE...`, in an empty folder.

Each page has a process and a folder of its own. The processes are forks of one that has imported what most pages need,
where the system can fork. Blocks are taken in order. Python runs in one namespace; a block with a title is a file and
is written; lines of bash are commands; a block of text after one of these is what it prints, and is compared.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import linecache
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

IMPORTED = (
    "torch._dynamo", "numba", "statemix.cli.app", "statemix.report", "statemix.training", "statemix.tasks",
    "statemix.hf", "peft",
)  # fmt: skip
"""What takes most of the time of short pages."""

BLOCK = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its title (the name of a file) and its text."""

    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that are code, commands, files or output."""
    found = [
        Block(language, title or None, text) for _, language, title, text in BLOCK.findall(page.read_text())
    ]
    return [block for block in found if block.title or block.language in ("python", "bash", "toml", "text")]


def command(line: str) -> str:
    """What one command prints."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "torchrun":
        words = [sys.executable, "-m", "torch.distributed.run", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout
    assert program == "statemix", line
    sys.argv = [program, *arguments]  # in this process, which has imported everything already
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_module("statemix", run_name="__main__")
        except SystemExit as end:
            code = end.code
        else:
            code = 0
    assert not code, f"{line}: exit code {code}\n{out.getvalue()}"
    return out.getvalue()


def run(page: Path) -> None:
    """Run every block of the page."""
    namespace = {"__name__": page.stem}
    printed = ""
    for place, block in enumerate(blocks(page)):
        if block.title:
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            name = f"<{page.name}:{place}>"
            linecache.cache[name] = (len(block.text), None, block.text.splitlines(keepends=True), name)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block.text, name, "exec"), namespace)
            printed = out.getvalue()
        elif block.language == "bash":
            printed = "".join(command(line) for line in block.text.splitlines() if line.strip())
        elif block.language == "text":
            assert printed.strip() == block.text.strip(), (
                f"{page.name} prints\n{printed}\nand says\n{block.text}"
            )


def run_in_folder(page: Path) -> None:
    """Run a page in a new folder of its name."""
    folder = Path(page.stem)
    folder.mkdir()
    os.chdir(folder)
    run(page)


def run_all(pages: list[Path]) -> list[str]:
    """Run pages, each in a process; the names of those that failed."""
    forks = "fork" in multiprocessing.get_all_start_methods()
    for module in IMPORTED if forks else ():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    failed = []
    for page in pages:
        process = multiprocessing.get_context("fork" if forks else "spawn").Process(
            target=run_in_folder, args=(page,), name=page.stem
        )
        process.start()
        process.join()
        failed += [page.name] * (process.exitcode != 0)
    return failed


if __name__ == "__main__":
    failed = run_all([Path(name).absolute() for name in sys.argv[1:]])
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
