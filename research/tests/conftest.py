"""One torch thread in each worker, and commands run in this process, in an empty folder."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

import pytest
import torch
from statemix_research.cli.app import PROGRAM


def pytest_configure(config: pytest.Config) -> None:
    """The tensors are small. One thread also makes runs of this process equal, bit for bit, to those of workers."""
    torch.set_num_threads(1)


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def research(tmp_path, monkeypatch, capsys):
    """A function that runs "statemix-research ..." (a line, or a list of arguments)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "COLUMNS", "200")

    def call(line):
        arguments = shlex.split(line) if isinstance(line, str) else list(line)
        code = PROGRAM.run(arguments)
        return Done(code, *capsys.readouterr())

    return call
