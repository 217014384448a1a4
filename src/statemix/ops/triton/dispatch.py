"""Which kernels run a call: one token, Hopper or portable kernels; whole sequences or chunks.

Long sequences with few lanes are cut in time (`chunking`) into chunks that run side by side. What a chunk does to the
state it begins with is taken first, a matrix P and an offset; the states at the chunks' starts follow from one small
scan over the chunks. Most gates forget: once P has vanished in float32, the rest of the chunk does not depend on its
start. Such chunks run from a zero state at once (local pass), all gates read once, and again from the true state as far
as the memory reaches (fix-up pass); chunks that never forget are read twice, for P and o and for the states. Nothing of
the size of the gates is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from statemix.ops.normalization import CODES
from statemix.ops.triton import chunking
from statemix.ops.triton.hopper.config import MAX_M
from statemix.ops.triton.hopper.launch import HopperKernels, aligned, fixup_pass, local_pass, prepare
from statemix.ops.triton.launch_table import KERNELS, MANY_LANES, LaunchKey, choose
from statemix.ops.triton.portable.launch import PortableKernels
from statemix.ops.triton.portable.step import step

Kernels = PortableKernels | HopperKernels
Tensors = tuple[Tensor, ...]


@lru_cache(maxsize=64)
def _gpu(index: int) -> tuple[str, tuple[int, int]]:
    """Name and compute capability; ROCm's capabilities are not CUDA's and match no measured table."""
    capability = torch.cuda.get_device_capability(index) if torch.version.hip is None else (0, 0)
    return torch.cuda.get_device_name(index), capability


def _kernels(
    recurrence: str, normalization: str, direction: str, gates: Tensor, values: Tensor, m: int, lanes: int
) -> tuple[Kernels, Tensor, Tensor]:
    """The kernels for a call, and gates and values as they take them."""
    norm = CODES[normalization]
    if values.is_cuda and m <= MAX_M:
        key = LaunchKey(KERNELS[recurrence], direction, m, values.element_size(), lanes >= MANY_LANES)
        launch = choose(key, *_gpu(values.device.index))
        if launch is not None:
            gates, values, width = prepare(recurrence, gates, values)
            return HopperKernels(recurrence, norm, launch, width), gates, values
    return PortableKernels(recurrence, norm), gates, values


def _chunk(
    recurrence: str, values: Tensor, initial: Tensor, cu_seqlens: Tensor | None
) -> tuple[int | None, int]:
    """Steps of a chunk (None: no cut), and the lanes that then run side by side."""
    lanes, length = initial.shape[0] * values.shape[2:].numel(), values.shape[1]
    chunk = None
    if cu_seqlens is None:
        chunk = chunking.chunk_length(KERNELS[recurrence], initial.shape[-1], lanes, length)
    return chunk, lanes * (-(-length // chunk) if chunk else 1)


def forward(
    recurrence: str, normalization: str, inputs: Tensors, outputs: Tensors, cu_seqlens: Tensor | None
) -> None:
    """Fill (states, final), both contiguous, from (gates, values, initial)."""
    gates, values, initial = inputs
    if values.shape[1] == 1 and cu_seqlens is None:
        step(recurrence, CODES[normalization], inputs, outputs)
        return
    chunk, lanes = _chunk(recurrence, values, initial, cu_seqlens)
    m = initial.shape[-1]
    kernels, gates, values = _kernels(recurrence, normalization, "forward", gates, values, m, lanes)
    if chunk is None:
        kernels.forward((gates, values, initial), outputs, cu_seqlens, None)
    else:
        _run_in_chunks(kernels, (gates, values, initial), outputs, chunk, False)


def backward(
    recurrence: str, normalization: str, inputs: Tensors, outputs: Tensors, cu_seqlens: Tensor | None,
    summed: bool = False,
) -> Tensor | None:  # fmt: skip
    """Fill (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final).

    summed: returns sums of the gates' gradients [parts, C, H] in float32, or None where these kernels make none.
    """
    gates, values, states, initial, grad_states, grad_final = inputs
    chunk, lanes = _chunk(recurrence, values, initial, cu_seqlens)
    m = initial.shape[-1]
    kernels, gates, values = _kernels(recurrence, normalization, "backward", gates, values, m, lanes)
    inputs = (gates, values, aligned(states), initial, aligned(grad_states), grad_final)
    if chunk is not None:
        _run_in_chunks(kernels, inputs, outputs, chunk, True)
        return None
    sums = kernels.empty_sums(gates, initial.shape[0]) if summed else None
    kernels.backward(inputs, outputs, cu_seqlens, None, sums=sums)
    return sums


def _summary(
    kernels: Kernels, gates: Tensor, inputs: Tensor, chunk: int, reverse: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Matrices and offsets of all chunks and their memory lengths, or None where every offset is there."""
    if isinstance(kernels, HopperKernels):
        summary = kernels.chunk_summary(gates, inputs, chunk, reverse)
        if summary is not None:
            return summary
        kernels = PortableKernels(kernels.recurrence, kernels.norm)
    return *kernels.chunk_summary(gates, inputs, chunk, reverse), None


def _run_in_chunks(kernels: Any, inputs: Tensors, outputs: Tensors, chunk: int, reverse: bool) -> None:
    """As `kernels.forward` or (reverse) `kernels.backward`: the last input is carried in, the last output out."""
    run = kernels.backward if reverse else kernels.forward
    *read, carried = inputs
    *written, out = outputs
    matrices, offsets, memory_lengths = _summary(kernels, read[0], read[-1], chunk, reverse)
    if memory_lengths is None:
        starts, _ = chunking.inter_chunk_scan(matrices, offsets, carried, reverse)
        run((*read, starts), outputs, None, chunk)
        return
    zeros = torch.zeros_like(offsets)
    run((*read, zeros), (*written, offsets), None, chunk, local_pass(memory_lengths))
    starts, last = chunking.inter_chunk_scan(matrices, offsets, carried, reverse)
    run((*read, starts), (*written, last), None, chunk, fixup_pass(memory_lengths))
    out.copy_(last)
