"""The instances of a run, on its device, in an order that is a function of (seed, step)."""

from __future__ import annotations

import functools
import json
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.tasks import IGNORED, Examples, Task, get_task
from statemix.training.config import Config

SETS_KEPT, LARGEST_KEPT = 64, 1 << 22
"""How many sets of instances are kept for other runs of this process, and the most tokens of one: 4 GB in all."""


def evaluation_set(
    task: Task, length: int, split: str, count: int, seed: int, device: torch.device
) -> Examples:
    """`task.generate`, on a device. Not to be changed: on the CPU it is shared with other runs.

    Drawing can take seconds, and the runs of a sweep share a few sets.
    """
    options = json.dumps(task.options)
    draw = _draw if count * task.input_length(length) <= LARGEST_KEPT else _draw.__wrapped__
    return Examples(*(part.to(device) for part in draw(task.name, options, length, split, count, seed)))


@functools.lru_cache(maxsize=SETS_KEPT)
def _draw(name: str, options: str, length: int, split: str, count: int, seed: int) -> Examples:
    return get_task(name, **json.loads(options)).generate(count, length=length, seed=seed, split=split)


class TrainingSet:
    """A fixed set of instances on the device, in a new order every epoch, laid out batch by batch for captured steps.

    Instances of several lengths (`training.train_lengths`) have an equal share each, and a batch has one length.
    Shorter instances are padded, with nothing to predict behind their end.
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
        longest = max(map(task.input_length, self.lengths))
        self.instances = torch.cat([_padded(one, longest) for one in sets])  # [count, 2, T]: inputs, targets
        self.batch_size, self._seed = training.batch_size, training.seed
        self._counts = [len(one.inputs) for one in sets]
        self._batches = [
            (which, start, min(start + self.batch_size, count))
            for which, count in enumerate(self._counts)
            for start in range(0, count, self.batch_size)
        ]
        self.batches = len(self._batches)
        """Of an epoch; the last of each length may be smaller."""
        self._epoch, self._order = -1, self._batches
        shape = (self.batches, self.batch_size, *self.instances.shape[1:])
        self._laid_out = self.instances.new_zeros(shape)  # [batches, batch_size, 2, T]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of a length in an epoch may be smaller."""
        place = self.enter(step)
        which, start, end = self._order[place]
        length = self._laid_out.shape[-1] - max(self.lengths) + self.lengths[which]
        inputs, targets = self._laid_out[place, : end - start, :, :length].unbind(1)
        return inputs.contiguous(), targets.contiguous()

    def batch_at(self, place: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, T] at a place in the epoch, int64 [1] on the device; T is the longest length."""
        inputs, targets = self._laid_out.index_select(0, place)[0, :rows].unbind(1)
        return inputs, targets

    def rows(self, step: int, most: int = 1) -> list[int]:
        """How many instances each of the next batches of the epoch has, `most` of them or fewer."""
        place = self.enter(step)
        return [end - start for _, start, end in self._order[place : place + most]]

    def enter(self, step: int) -> int:
        """Lay out a step's epoch unless it is there, waiting for nothing; returns the step's place in it."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
            orders = [torch.randperm(count, generator=generator) for count in self._counts]
            if len(self._counts) > 1:
                mixed = torch.randperm(self.batches, generator=generator).tolist()
                self._order = [self._batches[k] for k in mixed]
            rows = torch.zeros(self.batches, self.batch_size, dtype=torch.int64)
            firsts = [0, *accumulate(self._counts)]
            for row, (which, start, end) in zip(rows, self._order, strict=True):
                row[: end - start] = firsts[which] + orders[which][start:end]
            if self.instances.is_cuda:
                rows = rows.pin_memory().to(self.instances.device, non_blocking=True)
            torch.index_select(self.instances, 0, rows.flatten(), out=self._laid_out.flatten(0, 1))
            self._epoch = epoch
        return place


def _padded(examples: Examples, length: int) -> Tensor:
    """Inputs and targets side by side: int64 [count, 2, length]."""
    pad = (0, length - examples.inputs.shape[1])
    return torch.stack([F.pad(examples.inputs, pad), F.pad(examples.targets, pad, value=IGNORED)], dim=1)
