"""The fast CPU backend: hands tensors to the compiled kernels, spread over torch's number of threads.

Extra memory beyond inputs, outputs and gradients is a few rows of scratch a thread, independent of T.
Half precision is read and written as it is; the kernels compute in float32 (float64 for float64 tensors).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from statemix.extras import missing
from statemix.ops.checks import check_bounds
from statemix.ops.layout import empty_fast, state_dtype
from statemix.ops.normalization import NORMALIZATIONS
from statemix.ops.workers import share

CODES = {name: code for code, name in enumerate(NORMALIZATIONS)}

INSTALLED = importlib.util.find_spec("numba") is not None
"""Looked up once: torch.compile traces through the choice of a backend."""

MISSING = missing("numba")

BITS = {torch.bfloat16: "uint16", torch.float16: "int16"}

NOT_WANTED = 0
"""In place of states that a kernel need not write."""


def unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run on tensors of a device and a dtype (None: any it takes), or None."""
    if device.type != "cpu":
        return f"the compiled CPU kernels need tensors on the CPU, got {device}"
    if not INSTALLED:
        return MISSING
    return None


def _spread(kernel: Callable[..., None], items: int, work: int, *arguments: Any) -> None:
    """Run kernel(first, last, ...) over `items` independent work items on torch's number of threads."""
    if work < 20_000:  # numbers touched: below this a thread costs more than it saves
        _call(kernel, 0, items, *arguments)
        return
    shares = max(1, min(torch.get_num_threads(), items))
    share(partial(_call, kernel), [items * k // shares for k in range(shares + 1)], *arguments)


def _call(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel with the addresses of tensors, which live as long as the call."""
    kernel(*[x.data_ptr() if isinstance(x, Tensor) else x for x in arguments])


@cache
def _example(dtype: torch.dtype) -> Any:
    """An empty array of the numbers that the kernels see in a tensor of a dtype."""
    empty = torch.empty(0, dtype=dtype, device="cpu")
    if dtype in BITS:  # numpy has no bfloat16, and Numba no float16: the kernels take their bits
        return empty.view(torch.int16).numpy().view(BITS[dtype])
    return empty.numpy()


@lru_cache(maxsize=64)
def _whole_rows(batch: int, length: int) -> Any:
    """`_bounds` of one sequence a row."""
    return torch.tensor([[row, 0, length] for row in range(batch)], dtype=torch.int64).reshape(-1, 3).numpy()


def _bounds(values: Tensor, cu_seqlens: Tensor | None) -> Any:
    """[S, 3]: batch row, first step and end of every sequence."""
    batch, length = values.shape[:2]
    if cu_seqlens is None:
        return _whole_rows(batch, length)
    check_bounds(cu_seqlens.tolist(), length)
    ends = cu_seqlens.to(torch.int64)
    return torch.stack([torch.zeros_like(ends[1:]), ends[:-1], ends[1:]], dim=1).contiguous().numpy()


@cache
def _compiled() -> Any:
    from statemix.ops import cpu_kernels

    return cpu_kernels


def _work(gates: Tensor, state: Tensor, length: int) -> tuple[int, tuple[int, int, int, int]]:
    """How many work items there are, and the sizes (T, N, m, columns) that the kernels want."""
    sequences, blocks, m = state.shape
    return sequences * -(-blocks // _compiled().LANES), (length, blocks, m, gates.shape[-1])


def forward(
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor | None,
    normalization: str,
) -> tuple[Tensor, Tensor]:
    """states (N innermost, dtype of `values`) and the final state (plain) of one recurrence."""
    dtype = state_dtype(values.dtype)
    states = empty_fast(values, "values")
    initial = initial_state.to(dtype).contiguous()  # [S, N, m]
    final = torch.empty_like(initial)
    items, sizes = _work(gates, initial_state, gates.shape[1])
    if items and sizes[2]:
        _spread(
            _compiled().KERNELS[recurrence][0], items, gates.numel(), CODES[normalization], sizes,
            _bounds(values, cu_seqlens), _example(values.dtype), _example(dtype),
            gates, gates.stride(), values, values.stride(), initial, states, final,
        )  # fmt: skip
    return states, final


def step(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor, normalization: str
) -> tuple[Tensor, Tensor]:
    """One token, all tensors without T: the states that are read out, in the dtype of `values`, and the new one."""
    dtype = state_dtype(values.dtype)
    state = (state if state.dtype == dtype else state.to(dtype)).contiguous()
    new = torch.empty_like(state)
    items, sizes = _work(gates, state, 1)
    if items:
        _spread(
            _compiled().KERNELS[recurrence][0], items, gates.numel(), CODES[normalization], sizes,
            _whole_rows(state.shape[0], 1), _example(values.dtype), _example(dtype),
            gates, _with_time(gates.stride()), values, _with_time(values.stride()), state, NOT_WANTED, new,
        )  # fmt: skip
    states = new[..., 0] if recurrence == "hlru" else new
    return states if dtype == values.dtype else states.to(values.dtype), new


def _with_time(strides: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of one token with those of a time of one step."""
    return strides[0], 0, *strides[1:]


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
    """Gradients of gates and values (N innermost) and of the initial state (plain)."""
    dtype = state_dtype(values.dtype)
    states, grads = states.to(values.dtype), grad_states.to(values.dtype)
    d_gates, d_values = empty_fast(gates, "gates"), empty_fast(values, "values")
    initial = initial_state.to(dtype).contiguous()  # [S, N, m]
    d_final = grad_final.to(dtype).contiguous()
    d_initial = torch.empty_like(initial)
    items, sizes = _work(gates, initial_state, gates.shape[1])
    if items and sizes[2]:
        _spread(
            _compiled().KERNELS[recurrence][1], items, gates.numel(), CODES[normalization], sizes,
            _bounds(values, cu_seqlens), _example(values.dtype), _example(dtype),
            gates, gates.stride(), values, values.stride(), initial, states, states.stride(), grads, grads.stride(),
            d_final, d_gates, d_values, d_initial,
        )  # fmt: skip
    return d_gates, d_values, d_initial
