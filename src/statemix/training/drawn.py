"""Instances drawn once for all runs of a process that train or test on them."""

from __future__ import annotations

import threading
from collections import OrderedDict

from statemix.tasks import Examples, Task

MOST = 2 << 30
"""Bytes that are kept."""

_kept: OrderedDict[tuple[object, ...], Examples] = OrderedDict()
_lock = threading.Lock()


def drawn(task: Task, length: int, split: str, examples: int, seed: int) -> Examples:
    """`task.generate`, on the CPU, remembered while there is room: the oldest are forgotten first. Not to be changed.

    Drawing can take seconds, and the runs of a sweep share a few sets.
    """
    options = {**task.options, "length": length}
    key = (task.name, tuple(sorted(options.items())), split, examples, seed)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = task.generate(examples, length=length, seed=seed, split=split)
    with _lock:
        _kept[key] = made
        while sum(map(_bytes, _kept.values())) > MOST:
            _kept.popitem(last=False)
    return made


def _bytes(examples: Examples) -> int:
    return sum(part.nbytes for part in examples)
