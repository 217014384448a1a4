"""The instances of a run, on its device, in an order that is a function of (seed, step)."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.tasks import Examples, Task
from statemix.training.config import Config


class TrainingSet:
    """A fixed set of instances, drawn in a new order every epoch; any step's batch can be named at once."""

    def __init__(self, task: Task, config: Config, device: torch.device) -> None:
        training = config.training
        examples = task.generate(training.train_examples, seed=training.seed, split="train")
        self.inputs, self.targets = examples.inputs.to(device), examples.targets.to(device)
        self.count, self.batch_size, self._seed = len(self.inputs), training.batch_size, training.seed
        self.batches = -(-self.count // self.batch_size)
        """Of an epoch; the last may be smaller."""
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def order(self, epoch: int) -> Tensor:
        """The rows of an epoch, in their order: [count] on the CPU."""
        generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
        return torch.randperm(self.count, generator=generator)

    def rows(self, place: int) -> int:
        """How many instances the batch at a place of an epoch has."""
        return min(self.batch_size, self.count - place * self.batch_size)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of an epoch may be smaller."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            self._order, self._epoch = self.order(epoch).to(self.inputs.device), epoch
        rows = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return self.inputs[rows], self.targets[rows]


class Epoch:
    """One epoch of a training set laid out batch by batch on its device, where a tensor says which batch is next.

    So a captured step finds its batch without the host. Nothing here waits for the device.
    """

    def __init__(self, data: TrainingSet) -> None:
        self._data, self._epoch = data, -1
        self._both = torch.stack([data.inputs, data.targets], dim=1)  # [count, 2, T]
        shape = (data.batches * data.batch_size, *self._both.shape[1:])
        self._laid_out = self._both.new_zeros(shape)

    def enter(self, epoch: int) -> bool:
        """Lay out an epoch unless it is there already; returns whether it was not."""
        if epoch == self._epoch:
            return False
        order = self._data.order(epoch)
        if self._both.is_cuda:
            order = order.pin_memory()
        order = order.to(self._both.device, non_blocking=True)
        torch.index_select(self._both, 0, order, out=self._laid_out[: self._data.count])
        self._epoch = epoch
        return True

    def batch(self, place: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [rows, T] of the batch at `place`, int64 [1] on the device."""
        batches = self._laid_out.unflatten(0, (self._data.batches, self._data.batch_size))
        chosen = batches.index_select(0, place)[0, :rows]  # [rows, 2, T]
        return chosen[:, 0], chosen[:, 1]


def evaluation_set(
    task: Task, length: int, split: str, examples: int, seed: int, device: torch.device
) -> Examples:
    """Instances of one length and split, on the device."""
    drawn = task.generate(examples, length=length, seed=seed, split=split)
    return Examples(drawn.inputs.to(device), drawn.targets.to(device))
