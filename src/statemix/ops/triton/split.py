"""Long sequences with few lanes: time is cut into segments that run side by side.

What a segment does to the state it begins with is taken first, a matrix P and an offset; the states at the segments'
starts follow from one small walk over the segments (`carry`). Most gates forget: once P has vanished in float32, the
rest of the segment does not depend on its start. Such segments run from a zero state at once, all gates read once, and
again from the true state as far as the horizon; segments that never forget are read twice, for P and o and for the
states. Nothing of the size of the gates is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.ops.triton import turns
from statemix.ops.triton.carry import carry

LANES = 2048
"""Up to this many lanes (rows or channels of all sequences) a GPU is too empty to walk time whole."""

LENGTH = 1024
"""The shortest sequence worth cutting."""

SIDE_BY_SIDE = 8192
"""Lanes of all segments together: enough to fill a GPU; more would make segments shorter, and gates need time to
forget."""

SHORTEST = 192
"""The shortest segment."""

BALLAST = 64
"""A segment has at least m times as many steps: its matrix is then a few percent of its gates."""

LARGEST = 16
"""The largest block size or order whose matrices are worth taking."""


class Worth(NamedTuple):
    """When cutting is faster: from so many segments a sequence on it is even where every matrix has to be taken;
    segments of so many steps rarely need one, since gates of the usual size have forgotten before."""

    segments: int
    forgetting: int


WORTH: dict[str, dict[int, Worth]] = {
    "block": {1: Worth(4, 128), 2: Worth(5, 128), 4: Worth(6, 256), 8: Worth(8, 512), 16: Worth(14, 1024)},
    "order": {1: Worth(4, 128), 2: Worth(5, 256), 4: Worth(6, 1024), 8: Worth(8, 2048), 16: Worth(20, 8192)},
}
"""By recurrence ("order" is H-LRU), for m up to the number given; measured on an H100."""


def segment_length(kind: str, m: int, lanes: int, length: int) -> int | None:
    """Steps of a segment, or None if the sequences are walked whole."""
    if lanes == 0 or lanes > LANES or length < LENGTH or m > LARGEST:
        return None
    even = -(-length * lanes // SIDE_BY_SIDE)
    steps = -(-max(SHORTEST, BALLAST * m, even) // 64) * 64
    worth = next(entry for limit, entry in WORTH[kind].items() if m <= limit)
    return steps if steps >= worth.forgetting or length >= worth.segments * steps else None


def forward(
    kernels: Any, gates: Tensor, values: Tensor, initial: Tensor, states: Tensor, final: Tensor, segment: int
) -> None:
    """Fill `states` and `final` in segments."""
    matrices, offsets, horizons = kernels.products(gates, values, segment, False)
    if horizons is None:
        starts, _ = carry(matrices, offsets, initial, False)
        kernels.forward(gates, values, starts, states, final, None, segment)
        return
    zeros = torch.zeros_like(offsets)
    kernels.forward(gates, values, zeros, states, offsets, None, segment, turns.blind(horizons))
    starts, last = carry(matrices, offsets, initial, False)
    kernels.forward(gates, values, starts, states, last, None, segment, turns.correct(horizons))
    final.copy_(last)


def backward(kernels: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], segment: int) -> None:
    """Fill the gradients in segments; inputs and outputs as `turns.Kernels.backward` takes them."""
    *read, grad_states, grad_final = inputs
    *written, d_initial = outputs
    matrices, offsets, horizons = kernels.products(read[0], grad_states, segment, True)
    if horizons is None:
        carries, _ = carry(matrices, offsets, grad_final, True)
        kernels.backward((*read, grad_states, carries), outputs, None, segment)
        return
    zeros = torch.zeros_like(offsets)
    kernels.backward((*read, grad_states, zeros), (*written, offsets), None, segment, turns.blind(horizons))
    carries, last = carry(matrices, offsets, grad_final, True)
    kernels.backward((*read, grad_states, carries), (*written, last), None, segment, turns.correct(horizons))
    d_initial.copy_(last)
