"""The instances of a run, on its device, in an order that is a function of (seed, step)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.tasks import IGNORED, Examples, Task
from statemix.training.config import Config

CACHE_BYTES = 2 << 30
"""Room for instances that are kept for other runs of this process."""

_cache: OrderedDict[tuple[object, ...], Examples] = OrderedDict()
_lock = threading.Lock()


def cached_examples(task: Task, length: int, split: str, count: int, seed: int) -> Examples:
    """`task.generate`, on the CPU, cached while there is room (the oldest go first). Not to be changed.

    Drawing can take seconds, and the runs of a sweep share a few sets.
    """
    options = {**task.options, "length": length}
    key = (task.name, tuple(sorted(options.items())), split, count, seed)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    made = task.generate(count, length=length, seed=seed, split=split)
    with _lock:
        _cache[key] = made
        while sum(part.nbytes for one in _cache.values() for part in one) > CACHE_BYTES:
            _cache.popitem(last=False)
    return made


def evaluation_set(
    task: Task, length: int, split: str, count: int, seed: int, device: torch.device
) -> Examples:
    """Instances of one length and split, on the device; on the CPU shared with other runs, not to be changed."""
    inputs, targets = cached_examples(task, length, split, count, seed)
    return Examples(inputs.to(device), targets.to(device))


class TrainingSet:
    """A fixed set of instances, in a new order every epoch; any step's batch can be named at once.

    Instances of several lengths (`training.train_lengths`) have an equal share each. A batch has one length, and an
    epoch takes all batches in a new order. Shorter instances are padded, with nothing to predict behind their end.
    """

    def __init__(self, task: Task, config: Config, device: torch.device) -> None:
        training = config.training
        self.lengths = training.train_lengths or (task.length,)
        self.causal = task.backbone == "language_model"
        share, more = divmod(training.train_examples, len(self.lengths))
        sets = [
            evaluation_set(task, length, "train", share + (k < more), training.seed, device)
            for k, length in enumerate(self.lengths)
        ]
        longest = max(self.lengths)
        self.inputs = torch.cat([F.pad(x.inputs, (0, longest - x.inputs.shape[1])) for x in sets])
        self.targets = torch.cat(
            [F.pad(x.targets, (0, longest - x.targets.shape[1]), value=IGNORED) for x in sets]
        )
        self._counts = [len(x.inputs) for x in sets]
        self.batch_size, self._seed = training.batch_size, training.seed
        self._batches = [
            (which, start, min(start + self.batch_size, count))
            for which, count in enumerate(self._counts)
            for start in range(0, count, self.batch_size)
        ]
        self.batches = len(self._batches)
        """Of an epoch; the last of each length may be smaller."""
        self._epoch, self._rows = -1, list[Tensor]()
        self._lengths = list[int]()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of a length in an epoch may be smaller."""
        place = self._enter(step)
        rows, length = self._rows[place], self._lengths[place]
        return self.inputs[rows, :length], self.targets[rows, :length]

    def rows(self, step: int) -> int:
        """How many instances the batch of a step has."""
        return len(self._rows[self._enter(step)])

    def full(self, step: int, most: int) -> int:
        """How many of the next batches of the epoch, up to `most`, are full."""
        place, found = self._enter(step), 0
        while (
            found < most
            and place + found < self.batches
            and len(self._rows[place + found]) == self.batch_size
        ):
            found += 1
        return found

    def layout(self, epoch: int) -> Tensor:
        """The rows of an epoch, its batches at multiples of their size: [batches * batch_size]."""
        self._enter(epoch * self.batches)
        return torch.cat([F.pad(rows, (0, self.batch_size - len(rows))) for rows in self._rows])

    def _enter(self, step: int) -> int:
        """Draw the order of a step's epoch unless it is there; returns the step's place in it."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
            orders = [torch.randperm(count, generator=generator) for count in self._counts]
            batches = self._batches
            if len(self._counts) > 1:
                batches = [batches[k] for k in torch.randperm(self.batches, generator=generator).tolist()]
            firsts = [0, *accumulate(self._counts)]
            order = torch.cat([firsts[which] + orders[which][start:end] for which, start, end in batches])
            if self.inputs.is_cuda:
                order = order.pin_memory()
            order = order.to(self.inputs.device, non_blocking=True)
            self._rows = list(order.split([end - start for _, start, end in batches]))
            self._lengths = [self.lengths[which] for which, _, _ in batches]
            self._epoch = epoch
        return place


class DeviceEpoch:
    """One epoch of a training set laid out batch by batch on its device, where a tensor says which batch is next.

    So a captured step finds its batch without the host. Nothing here waits for the device.
    """

    def __init__(self, data: TrainingSet) -> None:
        self._data, self._epoch = data, -1
        self._both = torch.stack([data.inputs, data.targets], dim=1)  # [count, 2, T]
        self._laid_out = self._both.new_zeros(data.batches * data.batch_size, *self._both.shape[1:])

    def enter(self, epoch: int) -> bool:
        """Lay out an epoch unless it is there already; returns whether it was not."""
        if epoch == self._epoch:
            return False
        torch.index_select(self._both, 0, self._data.layout(epoch), out=self._laid_out)
        self._epoch = epoch
        return True

    def batch(self, place: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, T] of the batch at `place`, int64 [1] on the device; T is the longest length."""
        batches = self._laid_out.unflatten(0, (self._data.batches, self._data.batch_size))
        chosen = batches.index_select(0, place)[0, :rows]  # [rows, 2, T]
        return chosen[:, 0], chosen[:, 1]
