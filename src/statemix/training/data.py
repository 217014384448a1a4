"""The instances of a run, on its device, in an order that is a function of (seed, step)."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix.tasks import IGNORED, Examples, Task
from statemix.training.config import Config
from statemix.training.drawn import drawn


class TrainingSet:
    """A fixed set of instances, drawn in a new order every epoch; any step's batch can be named at once.

    Instances of several lengths (`training.train_lengths`) have an equal share each. A batch has one length, and an
    epoch takes all batches in a new order. Shorter instances are kept with nothing asked behind their end.
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
        self._epoch, self._order, self._turns = -1, torch.empty(0, dtype=torch.int64), [0]
        self._starts = [0]
        self._here: tuple[int, Tensor] = (-1, self._order)  # an epoch, and its order on the device

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of a length in an epoch may be smaller."""
        place = self._enter(step)
        length = self.lengths[self._batches[self._turns[place]][0]]
        if self._here[0] != self._epoch:
            self._here = self._epoch, self._order.to(self.inputs.device)
        rows = self._here[1][self._starts[place] : self._starts[place + 1]]
        return self.inputs[rows, :length], self.targets[rows, :length]

    def rows(self, step: int) -> int:
        """How many instances the batch of a step has."""
        place = self._enter(step)
        return self._starts[place + 1] - self._starts[place]

    def full(self, step: int, most: int) -> int:
        """How many of the next batches of the epoch, up to `most`, are full."""
        place, found = self._enter(step), 0
        while found < most and place + found < self.batches and self.rows(step + found) == self.batch_size:
            found += 1
        return found

    def layout(self, epoch: int) -> Tensor:
        """The rows of an epoch, its batches at multiples of their size: [batches * batch_size] on the CPU."""
        self._enter(epoch * self.batches)
        rows = torch.zeros(self.batches, self.batch_size, dtype=torch.int64)
        for place in range(self.batches):
            start, end = self._starts[place : place + 2]
            rows[place, : end - start] = self._order[start:end]
        return rows.flatten()

    def _enter(self, step: int) -> int:
        """Draw the order of a step's epoch unless it is there; returns the step's place in it."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
            drawn = [torch.randperm(count, generator=generator) for count in self._counts]
            self._turns = list(range(self.batches))
            if len(self._counts) > 1:
                self._turns = torch.randperm(self.batches, generator=generator).tolist()
            firsts = [0, *accumulate(self._counts)]
            taken = [self._batches[turn] for turn in self._turns]
            self._order = torch.cat([firsts[which] + drawn[which][a:b] for which, a, b in taken])
            self._starts = [0, *accumulate(b - a for _, a, b in taken)]
            self._epoch = epoch
        return place


class Epoch:
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
        rows = self._data.layout(epoch)
        if self._both.is_cuda:
            rows = rows.pin_memory()
        rows = rows.to(self._both.device, non_blocking=True)
        torch.index_select(self._both, 0, rows, out=self._laid_out)
        self._epoch = epoch
        return True

    def batch(self, place: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, T] of the batch at `place`, int64 [1] on the device; T is the longest length."""
        batches = self._laid_out.unflatten(0, (self._data.batches, self._data.batch_size))
        chosen = batches.index_select(0, place)[0, :rows]  # [rows, 2, T]
        return chosen[:, 0], chosen[:, 1]


def evaluation_set(
    task: Task, length: int, split: str, examples: int, seed: int, device: torch.device
) -> Examples:
    """Instances of one length and split, on the device; on the CPU shared with other runs, not to be changed."""
    inputs, targets = drawn(task, length, split, examples, seed)
    return Examples(inputs.to(device), targets.to(device))
