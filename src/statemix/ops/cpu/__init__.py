"""The CPU backend: hands tensors to the compiled kernels (Numba), spread over torch's number of threads.

One work item owns up to BLOCKS_PER_ITEM neighbouring blocks of one sequence for all of T and walks it in tiles of a
few steps. A tile's raw gates go into scratch lines of at most WIDTH = steps x blocks numbers, one line for each
(row, column). The element-wise work (normalisation, gradients of the gates) runs along whole lines, the recurrence
itself along the blocks of one step. Lines are forgotten after their tile: neither the normalised gates nor the
transition matrices ever exist in memory, in either direction. Extra memory beyond inputs, outputs and gradients is a
few lines of scratch a thread, independent of T. A hard row is never written out either: it is the place of the one
number that it copies, and a sign (`hard.py`).

Tensors reach the kernels as addresses with strides in elements: a tensor seen as a NumPy array can no longer be
resized, which sharded training does to free it, and making one takes longer than a token's arithmetic. One compiled
version serves every memory layout; a stride of 1 along N takes the vectorised load. N is innermost in everything the
kernels write but the state. Half precision is read and written as it is; the kernels compute in float32 (float64 for
float64 tensors). Importing this module does not import Numba.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from statemix.extras import missing
from statemix.ops.checks import check_bounds
from statemix.ops.cpu.workers import share
from statemix.ops.layout import empty_fast, state_dtype
from statemix.ops.normalization import CODES, gradient_limits

INSTALLED = importlib.util.find_spec("numba") is not None
"""Found out at import: torch.compile traces through the choice of a backend."""

MISSING = missing("numba")

BITS = {torch.bfloat16: "uint16", torch.float16: "int16"}

LEAST_SHARED = 20_000
"""Gates below which a thread costs more than it saves."""

NOT_WANTED = 0
"""In place of states that a kernel need not write."""


def unavailable(device: torch.device, dtype: torch.dtype | None = None) -> str | None:
    """Why this backend cannot run on tensors of a device and a dtype (None: any it takes), or None."""
    if device.type != "cpu":
        return f"the compiled CPU kernels need tensors on the CPU, got {device}"
    return None if INSTALLED else MISSING


def forward(
    recurrence: str, gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    normalization: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """states (N innermost, dtype of `values`) and the final state (plain) of one recurrence."""
    initial = initial_state.to(state_dtype(values.dtype)).contiguous()  # [S, N, m]
    states, final = empty_fast(values, "values"), torch.empty_like(initial)
    strides, bounds = _strides(gates.stride(), values.stride()), _bounds(values, cu_seqlens)
    tensors = (gates, values, initial, states, final)
    _run(recurrence, "forward", normalization, values.shape[1], bounds, tensors, strides)
    return states, final


def backward(
    recurrence: str, gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None,
    grad_states: Tensor, grad_final: Tensor, normalization: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of gates and values (N innermost) and of the initial state (plain)."""
    states, grads = states.to(values.dtype), grad_states.to(values.dtype)
    initial, d_final = (x.to(state_dtype(values.dtype)).contiguous() for x in (initial_state, grad_final))
    d_gates, d_values, d_initial = (
        empty_fast(gates, "gates"), empty_fast(values, "values"), torch.empty_like(initial)
    )  # fmt: skip
    strides = _strides(gates.stride(), values.stride(), states.stride(), grads.stride())
    bounds = _bounds(values, cu_seqlens)
    tensors = (gates, values, initial, states, grads, d_final, d_gates, d_values, d_initial)
    _run(recurrence, "backward", normalization, values.shape[1], bounds, tensors, strides)
    return d_gates, d_values, d_initial


def step(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor, normalization: str
) -> tuple[Tensor, Tensor]:
    """One token, all tensors without T: the states that are read out, in the dtype of `values`, and the new one."""
    dtype = state_dtype(values.dtype)
    state = (state if state.dtype == dtype else state.to(dtype)).contiguous()
    new = torch.empty_like(state)
    strides = _strides(gates.stride(), values.stride(), time=(0,))
    tensors = (gates, values, state, NOT_WANTED, new)
    _run(recurrence, "forward", normalization, 1, _whole_rows(state.shape[0], 1), tensors, strides)
    states = new[..., 0] if recurrence == "hlru" else new
    return states if dtype == values.dtype else states.to(values.dtype), new


@functools.lru_cache(maxsize=256)
def _strides(*given: tuple[int, ...], time: tuple[int, ...] = ()) -> tuple[tuple[int, ...], ...]:
    """Strides of sequence, time (`time`, if a tensor has none), block, row and column, from those of tensors."""
    return tuple((own[0], *time, *own[1:], 0, 0)[:5] for own in given)


def _run(
    recurrence: str, direction: str, normalization: str, length: int, bounds: Any, tensors: tuple[Any, ...],
    strides: tuple[tuple[int, ...], ...],
) -> None:  # fmt: skip
    """Run a kernel over all sequences and blocks; tensors: gates, values and initial state, then what it wants."""
    gates, values, initial = tensors[:3]
    sequences, blocks, m = initial.shape
    if not initial.numel():
        return
    kernel, blocks_per_item = _kernel(recurrence, direction)
    items = sequences * -(-blocks // blocks_per_item)
    sizes = (length, blocks, m, gates.shape[-1])
    arguments = (CODES[normalization], sizes, bounds, _kinds(values.dtype), strides, tensors)
    shares = min(torch.get_num_threads(), items) if gates.numel() >= LEAST_SHARED else 1
    if shares == 1:
        _call(kernel, 0, items, *arguments)
    else:
        cuts = [items * k // shares for k in range(shares + 1)]
        share(functools.partial(_call, kernel), cuts, *arguments)


def _call(kernel: Callable[..., None], *arguments: Any) -> None:
    """Call a kernel with the addresses of tensors, its last argument, which live as long as the call."""
    *others, tensors = arguments
    kernel(*others, tuple([x.data_ptr() if isinstance(x, Tensor) else x for x in tensors]))


@functools.cache
def _kernel(recurrence: str, direction: str) -> tuple[Callable[..., None], int]:
    """A compiled kernel and how many blocks its work item has; an affine one is BD-LRU's without normalisation."""
    from statemix.ops.cpu import scans, tiles

    name = "hlru" if recurrence == "hlru" else "bdlru"
    return getattr(scans, f"{name}_{direction}"), tiles.BLOCKS_PER_ITEM


@functools.cache
def _kinds(dtype: torch.dtype) -> tuple[Any, Any, float, float]:
    """Empty arrays of the numbers that kernels see in tensors of a dtype and in states; limits of its gradients."""
    empty = torch.empty(0, dtype=dtype, device="cpu")
    stored = empty.view(torch.int16).numpy().view(BITS[dtype]) if dtype in BITS else empty.numpy()
    return stored, empty.to(state_dtype(dtype)).numpy(), *gradient_limits(dtype)


@functools.lru_cache(maxsize=64)
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
