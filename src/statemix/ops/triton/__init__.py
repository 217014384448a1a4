"""The GPU backend: Triton kernels, compiled on first use. Importing this module does not import Triton."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from statemix.ops.checks import check_bounds
from statemix.ops.layout import fast_strides, split_gates_values

DTYPES = (torch.float32, torch.bfloat16, torch.float16)

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton's interpreter stands in for a GPU, for tests. Both are looked up once: torch.compile traces
through the choice of a backend."""


def unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run on tensors of a device and a dtype (None: any it takes), or None."""
    if device.type != "cuda" and not (INTERPRETED and device.type == "cpu"):
        return f"the Triton kernels need tensors on a CUDA or ROCm GPU, got {device}"
    if not INSTALLED:
        return "triton is not installed: pip install triton (it comes with the CUDA builds of torch)"
    if dtype is not None and dtype not in DTYPES:
        return f"the Triton kernels compute float32, bfloat16 and float16, got {dtype}"
    return None


def can_fuse(width: int, dtype: torch.dtype) -> bool:
    """Whether gates and values may come from one product, with `width` values a step: every step's values then begin
    where a wide copy can. `backward_fused` writes their gradients likewise."""
    return width * dtype.itemsize % 16 == 0


def _checked_bounds(cu_seqlens: Tensor | None, length: int) -> None:
    """Look at the bounds themselves, unless a CUDA graph is being captured: then nothing may wait for the GPU."""
    if cu_seqlens is not None and not (cu_seqlens.is_cuda and torch.cuda.is_current_stream_capturing()):
        check_bounds(cu_seqlens.tolist(), length)


def _on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which a tensor's device is the current one."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device_of(tensor)


def forward(
    recurrence: str, gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    normalization: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """states (plain, dtype of `values`) and the final state (plain, float32) of one recurrence."""
    _checked_bounds(cu_seqlens, values.shape[1])
    states = torch.empty_like(values, memory_format=torch.contiguous_format)
    initial = initial_state.float().contiguous()
    if values.numel() == 0:
        return states, initial.clone()
    from statemix.ops.triton import dispatch

    final = torch.empty_like(initial)
    with _on_device(values):
        inputs, outputs = (gates, values, initial), (states, final)
        dispatch.forward(recurrence, normalization, inputs, outputs, cu_seqlens)
    return states, final


def forward_fused(
    recurrence: str, gates_values: Tensor, inner: Sequence[int], *rest: Any
) -> tuple[Tensor, Tensor]:
    """`forward` for gates and values side by side; rest: as `forward`, from initial_state on."""
    return forward(recurrence, *_split(gates_values, inner), *rest)


_fast_strides = lru_cache(maxsize=4096)(fast_strides)


def backward(
    recurrence: str, gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    grad_states: Tensor, grad_final: Tensor, normalization: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of gates (planes outermost), values and the initial state (plain)."""
    d_gates = gates.new_empty_strided(gates.shape, _fast_strides(gates.shape, -1, 2))
    d_values = torch.empty_like(values, memory_format=torch.contiguous_format)
    arguments = (gates, values, states, initial_state, cu_seqlens, grad_states, grad_final, normalization)
    d_initial, _ = _fill(recurrence, (d_gates, d_values), *arguments)
    return d_gates, d_values, d_initial


def backward_fused(
    recurrence: str, gates_values: Tensor, states: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """`backward` for gates and values side by side (`layout.split_gates_values`): the gradient of both (contiguous),
    that of the gates summed over B and T (float32), and that of the initial state. rest: as `backward`, from
    initial_state on."""
    d_both = torch.empty_like(gates_values, memory_format=torch.contiguous_format)
    inner = states.shape[2:]
    outputs, (gates, values) = _split(d_both, inner), _split(gates_values, inner)
    d_initial, sums = _fill(recurrence, outputs, gates, values, states, *rest, summed=True)
    if sums is None:
        sums = d_both[..., : -inner.numel()].sum((0, 1), dtype=torch.float32)
    return d_both, sums, d_initial


def _split(gates_values: Tensor, inner: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`layout.split_gates_values`, in two operations where the tensor is contiguous."""
    if not gates_values.is_contiguous():
        return split_gates_values(gates_values, inner)
    gates, values, place = _split_views(gates_values.shape, tuple(inner))
    start = gates_values.storage_offset()
    return (
        gates_values.as_strided(gates[0], gates[1], start),
        gates_values.as_strided(values[0], values[1], start + place),
    )


@lru_cache(maxsize=4096)
def _split_views(shape: tuple[int, ...], inner: tuple[int, ...]) -> tuple[Any, Any, int]:
    """Shape and strides of the gates and of the values in a contiguous tensor, and where the values begin."""
    batch, length, total = shape
    width = math.prod(inner)
    planes = total // width - 1
    strides = (length * total, total, *fast_strides(inner, 0, 0))
    gates = (batch, length, *inner, planes), (*strides, width)
    return gates, ((batch, length, *inner), strides), planes * width


def _fill(
    recurrence: str, outputs: tuple[Tensor, Tensor], gates: Tensor, values: Tensor, states: Tensor,
    initial_state: Tensor, cu_seqlens: Tensor | None, grad_states: Tensor, grad_final: Tensor, normalization: str, *,
    summed: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Fill the gradients of gates and values; returns that of the initial state and, if `summed` and these kernels can,
    the sum of the gates' over B and T."""
    initial, d_final = initial_state.float().contiguous(), grad_final.float().contiguous()
    if values.numel() == 0:
        return d_final.clone(), None
    from statemix.ops.triton import dispatch

    d_initial = torch.empty_like(initial)
    if states.dtype != values.dtype or grad_states.dtype != values.dtype:
        states, grad_states = states.to(values.dtype), grad_states.to(values.dtype)
    with _on_device(values):
        inputs = (gates, values, states, initial, grad_states, d_final)
        results = (*outputs, d_initial)
        parts = dispatch.backward(recurrence, normalization, inputs, results, cu_seqlens, summed)
        return d_initial, None if parts is None else parts.sum(0).flatten()
