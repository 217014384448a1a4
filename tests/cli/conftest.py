"""Commands run in this process, in an empty folder."""

from __future__ import annotations

import os
import shlex
from typing import NamedTuple

import pytest

from statemix.cli.app import run
from tests.training.conftest import finished, runs, stopped  # noqa: F401 - fixtures

TINY = [
    "training.steps=4", "training.warmup=1", "training.batch_size=8", "training.train_examples=16",
    "training.eval_examples=8", "training.eval_lengths=[16,32]", "model.dim=16", "model.depth=1",
]  # fmt: skip
"""Settings that make any run a matter of a second."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def statemix(tmp_path, monkeypatch, capsys):
    """A function that runs "statemix ..." (a line, or a list of arguments)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "COLUMNS", "200")

    def call(line, extra=()):
        arguments = shlex.split(line) if isinstance(line, str) else list(line)
        code = run([*arguments, *extra])
        return Done(code, *capsys.readouterr())

    return call
