"""Which kernels run a call: one token, Hopper or portable kernels; whole sequences or chunks.

Long sequences with few lanes are cut in time (`chunking`) into chunks that run side by side. What a chunk does to the
state it begins with is taken first, a matrix P and an offset; the states at the chunks' starts follow from one small
scan over the chunks. Most gates forget: once P has vanished in float32, the rest of the chunk does not depend on its
start. Such chunks run from a zero state at once (local pass), all gates read once, and again from the true state as far
as the memory reaches (fix-up pass); chunks that never forget are read twice, for P and o and for the states. Nothing of
the size of the gates is kept.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.ops.launch import KERNELS, MANY_LANES, LaunchKey, choose, is_choosing, user_table
from statemix.ops.normalization import CODES
from statemix.ops.triton import chunking
from statemix.ops.triton.hopper.config import FIXUP_PASS, LOCAL_PASS, MAX_M
from statemix.ops.triton.hopper.launch import HopperKernels, TimePass, aligned, prepare
from statemix.ops.triton.launcher import Launch
from statemix.ops.triton.portable.launch import PortableKernels
from statemix.ops.triton.portable.step import MAX_STEP_M, step

Kernels = PortableKernels | HopperKernels
Tensors = tuple[Tensor, ...]


@lru_cache(maxsize=64)
def _gpu(index: int) -> tuple[str, tuple[int, int]]:
    """Name and compute capability; ROCm's capabilities are not CUDA's and match no measured table."""
    capability = torch.cuda.get_device_capability(index) if torch.version.hip is None else (0, 0)
    return torch.cuda.get_device_name(index), capability


def _is_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _kernels(
    recurrence: str, normalization: str, direction: str, gates: Tensor, values: Tensor, m: int, lanes: int
) -> tuple[Kernels, Tensor, Tensor]:
    """The kernels for a call, and gates and values as they take them."""
    norm = CODES[normalization]
    if _is_gpu(values) and m <= MAX_M:
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


class Whole(NamedTuple):
    """A call that was one launch on the tensors as they came: by which kernels, the launch, the shape of the sums, and
    what decided so (`_deciders`)."""

    kernels: type[Any]
    launch: Launch
    sums: tuple[int, ...] | None
    deciders: tuple[Any, ...]


_WHOLE: dict[tuple[Any, ...], Whole] = {}
"""Such calls by all else that they follow from (`_key`), at most `MAX_WHOLE`."""

MAX_WHOLE = 4096


def _key(task: str, recurrence: str, normalization: str, tensors: Tensors, bounds: Tensor | None) -> Any:
    """What settles how a call runs, but for addresses and deciders: tensors are gates, values, what is carried, and
    (backward) the gradients of gates and values."""
    gates, values, carried, *gradients = tensors
    layout = (gates.shape, gates.stride(), values.shape, values.stride(), carried.shape[0])
    strides = [x.stride() for x in gradients]
    dtypes = values.dtype, None if bounds is None else bounds.dtype
    return task, recurrence, normalization, *layout, *strides, *dtypes, values.device


def _deciders(device: torch.device) -> tuple[Any, ...]:
    """What chooses launches and chunks: two functions, and the user's own table."""
    return choose, chunking.chunk_length, user_table(_gpu(device.index)[0])


def _find(key: Any) -> Whole | None:
    """What is known of a call, as long as the same decides as did then."""
    found = _WHOLE.get(key)
    return found if found is not None and not is_choosing() and found.deciders == _deciders(key[-1]) else None


def _keep(key: Any, kernels: Kernels, launch: Launch, sums: Tensor | None = None) -> None:
    device = key[-1]
    if is_choosing() or device.type != "cuda":
        return
    if len(_WHOLE) >= MAX_WHOLE:
        _WHOLE.clear()
    _WHOLE[key] = Whole(type(kernels), launch, None if sums is None else sums.shape, _deciders(device))


def forward(
    recurrence: str, normalization: str, inputs: Tensors, outputs: Tensors, cu_seqlens: Tensor | None
) -> None:
    """Fill (states, final), both contiguous, from (gates, values, initial)."""
    gates, values, initial = inputs
    if values.shape[1] == 1 and cu_seqlens is None and initial.shape[-1] <= MAX_STEP_M:
        step(recurrence, CODES[normalization], inputs, outputs)
        return
    key = _key("forward", recurrence, normalization, inputs, cu_seqlens)
    known = _find(key)
    if known is not None and known.launch.again(*known.kernels.pointers(inputs, outputs, cu_seqlens)):
        return
    chunk, lanes = _chunk(recurrence, values, initial, cu_seqlens)
    kernels, *read = _kernels(recurrence, normalization, "forward", gates, values, initial.shape[-1], lanes)
    if chunk is not None:
        _run_in_chunks(kernels, (*read, initial), outputs, chunk, False)
        return
    launch = kernels.scan("forward", (*read, initial), outputs, cu_seqlens, None)
    if read[0] is gates and read[1] is values:
        _keep(key, kernels, launch)


def backward(
    recurrence: str, normalization: str, inputs: Tensors, outputs: Tensors, cu_seqlens: Tensor | None,
    summed: bool = False,
) -> Tensor | None:  # fmt: skip
    """Fill (d_gates, d_values, d_initial) from (gates, values, states, initial, grad_states, grad_final).

    summed: returns sums of the gates' gradients [parts, C, H] in float32, or None where these kernels make none.
    """
    gates, values, states, initial, grad_states, grad_final = inputs
    task, tensors = "summed" if summed else "backward", (gates, values, initial, *outputs[:2])
    key = _key(task, recurrence, normalization, tensors, cu_seqlens)
    known = _find(key)
    if known is not None and states.is_contiguous() and grad_states.is_contiguous():
        sums = None if known.sums is None else gates.new_empty(known.sums, dtype=torch.float32)
        if known.launch.again(*known.kernels.pointers(inputs, outputs, cu_seqlens, sums)):
            return sums
    chunk, lanes = _chunk(recurrence, values, initial, cu_seqlens)
    kernels, *read = _kernels(recurrence, normalization, "backward", gates, values, initial.shape[-1], lanes)
    inputs = (*read, aligned(states), initial, aligned(grad_states), grad_final)
    if chunk is not None:
        _run_in_chunks(kernels, inputs, outputs, chunk, True)
        return None
    sums = kernels.empty_sums(gates, initial.shape[0]) if summed else None
    launch = kernels.scan("backward", inputs, outputs, cu_seqlens, None, sums=sums)
    if read[0] is gates and read[1] is values:
        _keep(key, kernels, launch, sums)
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
    """As `kernels.scan`: the last input is carried in, the last output out."""
    run = partial(kernels.scan, "backward" if reverse else "forward")
    *read, carried = inputs
    *written, out = outputs
    matrices, offsets, memory_lengths = _summary(kernels, read[0], read[-1], chunk, reverse)
    if memory_lengths is None:
        starts, _ = chunking.inter_chunk_scan(matrices, offsets, carried, reverse)
        run((*read, starts), outputs, None, chunk)
        return
    zeros = torch.zeros_like(offsets)
    run((*read, zeros), (*written, offsets), None, chunk, TimePass(LOCAL_PASS, memory_lengths))
    starts, last = chunking.inter_chunk_scan(matrices, offsets, carried, reverse)
    run((*read, starts), (*written, last), None, chunk, TimePass(FIXUP_PASS, memory_lengths))
    out.copy_(last)
