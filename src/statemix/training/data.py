"""The instances of a run, on its device, in an order that is a function of (seed, step)."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.tasks import Examples, Task
from statemix.training.config import Config


class TrainingSet:
    """A fixed set of instances, drawn in a new order every epoch; any step's batch can be named at once.

    With `train_lengths`, an equal share of the instances has each length, a batch has one length, and an epoch
    takes the batches of all lengths in a new order.
    """

    def __init__(self, task: Task, config: Config, device: torch.device) -> None:
        training = config.training
        lengths = training.train_lengths or (task.length,)
        share, more = divmod(training.train_examples, len(lengths))
        self._sets = [
            evaluation_set(task, length, "train", share + (k < more), training.seed, device)
            for k, length in enumerate(lengths)
        ]
        self._batch_size, self._seed, self._device = training.batch_size, training.seed, device
        self._places = [
            (which, start)
            for which, examples in enumerate(self._sets)
            for start in range(0, len(examples.inputs), self._batch_size)
        ]
        self._epoch, self._orders, self._turns = -1, list[Tensor](), list[int]()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of a length in an epoch may be smaller."""
        epoch, turn = divmod(step, len(self._places))
        if epoch != self._epoch:
            self._shuffle(epoch)
        which, start = self._places[self._turns[turn]]
        rows = self._orders[which][start : start + self._batch_size]
        inputs, targets = self._sets[which]
        return inputs[rows], targets[rows]

    def _shuffle(self, epoch: int) -> None:
        generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
        self._orders = [
            torch.randperm(len(examples.inputs), generator=generator).to(self._device)
            for examples in self._sets
        ]
        self._turns = list(range(len(self._places)))
        if len(self._sets) > 1:
            self._turns = torch.randperm(len(self._places), generator=generator).tolist()
        self._epoch = epoch


def evaluation_set(
    task: Task, length: int, split: str, examples: int, seed: int, device: torch.device
) -> Examples:
    """Instances of one length and split, on the device."""
    drawn = task.generate(examples, length=length, seed=seed, split=split)
    return Examples(drawn.inputs.to(device), drawn.targets.to(device))
