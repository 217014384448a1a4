"""A task of one's own: a class and one line in the registry; the Python interface as its docstrings show it."""

from __future__ import annotations

import doctest
import math
from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch

from statemix.tasks import TASKS, Examples, Option, Task, get_task
from statemix.training import build, loop, resolve, train
from tests.training.small import small


class LastSeen(Task):
    """Repeat the token before this one."""

    name = "last_seen"
    summary = "Repeat the token before this one"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(4, 2, meaning="tokens"),
        "length": Option(8, 2, meaning="positions"),
    }

    def _prepare(self) -> None:
        self.vocab_size = self.integer("vocab_size")

    def _bits(self, length: int) -> float:
        return length * math.log2(self.vocab_size)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        inputs = torch.randint(self.vocab_size, (count, length), generator=generator)
        targets = inputs.roll(1, dims=1)
        targets[:, 0] = 0
        return Examples(inputs, targets)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(TASKS, LastSeen.name, LastSeen)


def test_it_trains(tmp_path):
    settings = (
        "task.name=last_seen",
        "training.steps=200",
        "training.lr=0.02",
        "mixer.name=hlru",
        "mixer.order=2",
    )
    summary = train(small(*settings, "training.eval_lengths=[]", "training.stop_accuracy=0.9"), tmp_path)
    assert summary["best_accuracy"] > 0.8


def test_its_options_are_checked():
    with pytest.raises(ValueError, match=r"last_seen.vocab_size: got 1, expected an integer of at least 2"):
        get_task("last_seen", vocab_size=1)


@pytest.mark.parametrize("module", [build, loop, resolve])
def test_the_examples_of_docstrings_run(module):
    tried = doctest.testmod(module)
    assert tried.attempted and not tried.failed
