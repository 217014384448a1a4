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
        self._inputs, self._targets = examples.inputs.to(device), examples.targets.to(device)
        self._batch_size, self._seed = training.batch_size, training.seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [B, T] of a step; the last batch of an epoch may be smaller."""
        count = len(self._inputs)
        batches = -(-count // self._batch_size)
        epoch, place = divmod(step, batches)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 32) + epoch)
            self._order = torch.randperm(count, generator=generator).to(self._inputs.device)
            self._epoch = epoch
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        return self._inputs[rows], self._targets[rows]


def evaluation_set(
    task: Task, length: int, split: str, examples: int, seed: int, device: torch.device
) -> Examples:
    """Instances of one length and split, on the device."""
    drawn = task.generate(examples, length=length, seed=seed, split=split)
    return Examples(drawn.inputs.to(device), drawn.targets.to(device))
