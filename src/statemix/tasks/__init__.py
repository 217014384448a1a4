"""Synthetic tasks: instances to train on, answers to test against, a rendering that a person can follow."""

from __future__ import annotations

from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.copying import Compression, SelectiveCopying
from statemix.tasks.fuzzy import FuzzyRecall
from statemix.tasks.groups import Alternating, Cyclic, Permutation
from statemix.tasks.recall import InContextRecall, Memorization, NoisyRecall
from statemix.tasks.regular import CycleNavigation, EvenPairs, ModularArithmetic, Parity
from statemix.tasks.splits import SPLITS

__all__ = ["IGNORED", "SPLITS", "TASKS", "Examples", "Option", "Task", "get_task"]

_BUILT_IN = (
    Compression, SelectiveCopying, InContextRecall, NoisyRecall, FuzzyRecall, Memorization, Permutation, Cyclic,
    Alternating, Parity, EvenPairs, CycleNavigation, ModularArithmetic,
)  # fmt: skip

TASKS: dict[str, type[Task]] = {task.name: task for task in _BUILT_IN}
"""Every task by name. A program adds one of its own with `TASKS[Mine.name] = Mine`."""


def get_task(name: str, **options: object) -> Task:
    """The task of that name with the given options; those left out have their defaults.

    Errors: ValueError for an unknown name or option, listing the known ones, and for a value out of range.
    """
    if name not in TASKS:
        raise ValueError(f"task: got {name!r}, expected one of {', '.join(map(repr, TASKS))}")
    return TASKS[name](**options)
