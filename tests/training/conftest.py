"""Runs that many tests read or damage: two seeds, each finished and stopped at step 23."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from statemix.training import loop, train
from tests.training.small import shared_folder, small


def after_step(patch, step, act):
    """Have something done to the folder of every run after a step."""
    advance = loop.Run._step

    def acting(self, most):
        advance(self, min(most, 1))
        if self.step == step:
            act(self.folder.path)

    patch.setattr(loop.Run, "_step", acting)


def train_all(root):
    for seed in (0, 1):
        config = small(f"training.seed={seed}")
        with pytest.MonkeyPatch.context() as patch:
            after_step(patch, 23, lambda folder: os.kill(os.getpid(), signal.SIGTERM))
            assert train(config, root / f"stopped-{seed}")["step"] == 23
        train(config, root / f"finished-{seed}")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folder of all four, not to be changed."""
    return shared_folder(tmp_path_factory, "trained", train_all)


@pytest.fixture(scope="session")
def untouched(runs):
    """A finished run, not to be changed."""
    return runs / "finished-0"


@pytest.fixture
def finished(runs, tmp_path):
    """A finished run of one's own."""
    return shutil.copytree(runs / "finished-0", tmp_path / "finished")


@pytest.fixture
def stopped(runs, tmp_path):
    """A run of one's own that was interrupted at step 23."""
    return shutil.copytree(runs / "stopped-0", tmp_path / "stopped")


@pytest.fixture
def at_step(monkeypatch):
    """`after_step` for the runs of this test."""
    yield lambda step, act: after_step(monkeypatch, step, act)
    monkeypatch.undo()
