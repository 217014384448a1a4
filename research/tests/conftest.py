"""One torch thread in each worker, and commands run in this process, in an empty folder."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import NamedTuple

import pytest
import torch
from statemix_research.cli.app import PROGRAM
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.sweeps import executors, jobs_of, make_plan
from statemix_research.sweeps.work import execute_packed

from research.tests.sweeps.helpers import QUICK
from tests.forks import PRELOADED


def pytest_configure(config: pytest.Config) -> None:
    """The tensors are small. One thread also makes runs of this process equal, bit for bit, to those of workers."""
    torch.set_num_threads(1)
    new = [name for name in PRELOADED if name not in executors.PRELOADED]
    executors.PRELOADED += new  # a worker has one server for all its tests


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


@pytest.fixture(scope="session")
def plan():
    """The plan of a small figure 3."""
    return make_plan(EXPERIMENTS["fig3"], "small", QUICK)


@pytest.fixture(scope="session")
def whole(plan, tmp_path_factory):
    """A store of a small figure 3."""
    path = tmp_path_factory.mktemp("whole")
    execute_packed(jobs_of(plan.cells), str(path), 8)
    return path


@pytest.fixture
def victim(whole, plan, tmp_path):
    """The folder of one run in a copy of that store."""
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s" / plan.cells[1].job.key
