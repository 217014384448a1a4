"""The fast CPU backend: hands tensors to the compiled kernels, spread over torch's number of threads.

Extra memory beyond inputs, outputs and gradients is a few rows of scratch a thread, independent of T.
Half precision is read and written as it is; the kernels compute in float32 (float64 for float64 tensors).
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from statemix.extras import missing
from statemix.ops.checks import check_bounds
from statemix.ops.layout import empty_fast, state_dtype
from statemix.ops.normalization import NORMALIZATIONS

CODES = {name: code for code, name in enumerate(NORMALIZATIONS)}

INSTALLED = importlib.util.find_spec("numba") is not None
"""Looked up once: torch.compile traces through the choice of a backend."""

MISSING = missing("numba")

BITS = {torch.bfloat16: "uint16", torch.float16: "int16"}

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run on tensors of a device and a dtype (None: any it takes), or None."""
    if device.type != "cpu":
        return f"the compiled CPU kernels need tensors on the CPU, got {device}"
    if not INSTALLED:
        return MISSING
    return None


def _forget_pool() -> None:
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="statemix")
        return _pool


def _spread(kernel: Callable[..., None], items: int, work: int, *arguments: Any) -> None:
    """Run kernel(first, last, ...) over `items` independent work items on torch's number of threads."""
    shares = max(1, min(torch.get_num_threads(), items))
    if work < 20_000:  # numbers touched: below this a thread costs more than it saves
        shares = 1
    cuts = [items * k // shares for k in range(shares + 1)]
    pending = [
        _threads().submit(kernel, first, last, *arguments)
        for first, last in zip(cuts[1:-1], cuts[2:], strict=True)
    ]
    try:
        kernel(cuts[0], cuts[1], *arguments)
    finally:
        for future in pending:
            future.result()


def _flat(tensor: Tensor) -> Any:
    """The storage behind a tensor from its first element, as a flat numpy array (no copy)."""
    extent = (
        0
        if tensor.numel() == 0
        else 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    )
    flat = tensor.detach().as_strided((extent,), (1,))
    if tensor.dtype in BITS:  # numpy has no bfloat16, and Numba no float16: the kernels take their bits
        return flat.view(torch.int16).numpy().view(BITS[tensor.dtype])
    return flat.numpy()


def _bounds(values: Tensor, cu_seqlens: Tensor | None) -> Any:
    """[S, 3]: batch row, first step and end of every sequence."""
    batch, length = values.shape[:2]
    if cu_seqlens is None:
        rows = torch.arange(batch)
        return torch.stack([rows, torch.zeros_like(rows), torch.full_like(rows, length)], dim=1).numpy()
    check_bounds(cu_seqlens.tolist(), length)
    ends = cu_seqlens.to(torch.int64)
    return torch.stack([torch.zeros_like(ends[1:]), ends[:-1], ends[1:]], dim=1).contiguous().numpy()


def _kernels(recurrence: str) -> tuple[Any, Any]:
    from statemix.ops.cpu_kernels import KERNELS

    return KERNELS[recurrence]


def _work(recurrence: str, gates: Tensor, state: Tensor) -> tuple[int, tuple[int, int, int, int]]:
    """How many work items there are, and the sizes (T, N, m, columns) that the kernels want."""
    from statemix.ops.cpu_kernels import LANES

    sequences, blocks, m = state.shape
    return sequences * -(-blocks // LANES), (gates.shape[1], blocks, m, gates.shape[-1])


def forward(
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor | None,
    normalization: str,
) -> tuple[Tensor, Tensor]:
    """states (N innermost, dtype of `values`) and the final state of one recurrence."""
    dtype = state_dtype(values.dtype)
    states = empty_fast(values, "values")
    initial = initial_state.to(dtype).transpose(1, 2).contiguous()  # [S, m, N]
    final = torch.empty_like(initial)
    items, sizes = _work(recurrence, gates, initial_state)
    if items and sizes[2]:
        _spread(
            _kernels(recurrence)[0], items, gates.numel(), CODES[normalization], sizes,
            _bounds(values, cu_seqlens), _flat(gates), gates.stride(), _flat(values), values.stride(),
            _flat(initial), _flat(states), _flat(final),
        )  # fmt: skip
    return states, final.transpose(1, 2)


def backward(
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    states: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor | None,
    grad_states: Tensor,
    grad_final: Tensor,
    normalization: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gates and values (N innermost) and of the initial state."""
    dtype = state_dtype(values.dtype)
    states, grads = states.to(values.dtype), grad_states.to(values.dtype)
    d_gates, d_values = empty_fast(gates, "gates"), empty_fast(values, "values")
    initial = initial_state.to(dtype).transpose(1, 2).contiguous()  # [S, m, N]
    d_final = grad_final.to(dtype).transpose(1, 2).contiguous()
    d_initial = torch.empty_like(initial)
    items, sizes = _work(recurrence, gates, initial_state)
    if items and sizes[2]:
        _spread(
            _kernels(recurrence)[1], items, gates.numel(), CODES[normalization], sizes,
            _bounds(values, cu_seqlens), _flat(gates), gates.stride(), _flat(values), values.stride(),
            _flat(initial), _flat(states), states.stride(), _flat(grads), grads.stride(),
            _flat(d_final), _flat(d_gates), _flat(d_values), _flat(d_initial),
        )  # fmt: skip
    return d_gates, d_values, d_initial.transpose(1, 2)
