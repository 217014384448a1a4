"""Synthetic tasks: instances to train on, answers to test against, a rendering that a person can follow."""

from __future__ import annotations

from statemix.tasks import mad, tracking
from statemix.tasks.automata import Automaton
from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.block_size import BlockSize, smallest_block
from statemix.tasks.splits import SPLITS

__all__ = [
    "IGNORED", "SPLITS", "TASKS", "Automaton", "BlockSize", "Examples", "Option", "Task", "get_task", "smallest_block",
]  # fmt: skip

_BUILT_IN = (
    mad.Compression, mad.SelectiveCopying, mad.InContextRecall, mad.NoisyRecall, mad.FuzzyRecall, mad.Memorization,
    tracking.Permutation, tracking.Cyclic, tracking.Alternating, tracking.Parity, tracking.EvenPairs,
    tracking.CycleNavigation, tracking.ModularArithmetic, tracking.AutomatonTask,
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
