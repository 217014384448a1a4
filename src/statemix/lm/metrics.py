"""What a run measures: losses step by step without waiting for the device, spikes, speed, memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.lm.processes import add_up, world_size
from statemix.training.metrics import Events

BACKWARD = 2
"""A backward pass is counted as so many forward passes."""


class Meter:
    """Losses and gradient norms of the steps since the last look, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._loss = torch.zeros((), device=device)
        self._steps: list[Tensor] = []
        self.norm = torch.zeros((), device=device)
        """Of the gradient of the step under way, before clipping."""

    def add(self, loss: Tensor, share: float) -> None:
        """The mean loss of a micro-batch, `share` of the step's tokens in this process."""
        self._loss = self._loss + share * loss.detach()

    def end_step(self) -> None:
        """The step under way is over."""
        self._steps.append(torch.stack([self._loss, self.norm]))
        self._loss = torch.zeros((), device=self._device)

    def __len__(self) -> int:
        return len(self._steps)

    def drain(self) -> list[tuple[float, float]]:
        """Loss, a mean over all processes, and gradient norm of every step. Waits for the device."""
        if not self._steps:
            return []
        numbers = add_up(torch.stack(self._steps)) / world_size()
        self._steps = []
        return [(loss, norm) for loss, norm in numbers.tolist()]


class SpikeDetector:
    """Finds losses far above those before them, and counts steps that were skipped.

    A loss is a spike when it exceeds the running mean by `LIMIT` running deviations and by `LEAST` nats; both run over
    some 1 / `RATE` steps and count after twice as many. A step is skipped when its gradient norm is not finite.
    """

    RATE, LIMIT, LEAST = 0.1, 6.0, 0.1

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        begin = {"count": 0, "mean": 0.0, "variance": 0.0, "spikes": 0, "skipped": 0, "running": 0}
        self.state: dict[str, Any] = begin if state is None else dict(state)
        """JSON values for a checkpoint; "running": steps skipped one after another, up to now."""

    def see(self, loss: float, norm: float) -> tuple[bool, bool]:
        """Whether a step's loss is a spike, and whether it was skipped."""
        state = self.state
        if not math.isfinite(norm) or not math.isfinite(loss):
            state["skipped"] += 1
            state["running"] += 1
            return False, True
        state["running"] = 0
        above, warm = loss - state["mean"], state["count"] * self.RATE >= 2
        spike = warm and above > max(self.LIMIT * math.sqrt(state["variance"]), self.LEAST)
        state["spikes"] += spike
        state["count"] += 1
        rate = max(self.RATE, 1 / state["count"])
        if not spike:
            state["mean"] += rate * above
            state["variance"] = (1 - rate) * (state["variance"] + rate * above**2)
        return spike, False


class Window(NamedTuple):
    """What the steps of one line of metrics were."""

    loss: float | None
    """Mean over the steps that were not skipped; None if all were."""
    norm: float | None
    """The largest finite gradient norm."""
    spikes: list[int]
    skipped: list[int]


def summarize(steps: Iterable[tuple[float, float]], first: int, detector: SpikeDetector) -> Window:
    """The steps from number `first` on, as a line of metrics tells of them."""
    losses, norms, spikes, skipped = [], [], [], []
    for number, (loss, norm) in enumerate(steps, first):
        spike, skip = detector.see(loss, norm)
        spikes += [number] * spike
        skipped += [number] * skip
        if not skip:
            losses.append(loss)
            norms.append(norm)
    return Window(statistics.fmean(losses) if losses else None, max(norms, default=None), spikes, skipped)


def memory_bytes(device: torch.device) -> int:
    """The most memory that was allocated: of a GPU; what the process holds now, on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil  # comes with accelerate

    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def utilization(tokens_per_second: float, flops: int, rate: float) -> float:
    """Model FLOPs utilisation of one device: forward and backward FLOPs a second over those of a matrix product.

    tokens_per_second: of this device. flops: of a forward pass per token. rate: FLOP/s of a large matrix product.
    """
    return tokens_per_second * (1 + BACKWARD) * flops / rate


class LMEvents(Events):
    """TensorBoard scalars of a language model's metrics."""

    names = (
        "loss",
        "bits_per_byte",
        "lr",
        "gradient_norm",
        "tokens_per_second",
        "mfu",
        "memory_gb",
        "skipped",
    )
