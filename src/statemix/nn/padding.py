"""Batches with padding: a mask says which tokens are real, and each row's sequence is treated as if it were alone.

Three ways lead there. On the CPU every sequence runs alone, since products of matrices round differently with the
number of their rows. Elsewhere, where zeros leave an empty state at zero, real tokens are moved to the end of their
row and padding before them is zeroed. All else is packed into one row. While a graph is traced or captured nothing can
be read from the mask: rows are then moved or packed without a look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

State = Any
"""A tensor whose first dimension counts sequences, or a (named) tuple or list of states."""


class LeftPadding(NamedTuple):
    """A mask that was checked, of rows that end with their real tokens and begin with an empty state."""

    real: Tensor


Run = Callable[[Tensor, State, "Tensor | None", "LeftPadding | None"], "tuple[Tensor, State]"]
"""x [B, T, ...], state, cu_seqlens, mask -> (y [B, T, dim], state)."""


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """A state of the results of `function` on the tensors that stand in the same places of some states; None stays.

    Args:
        function: Takes as many tensors as there are states.
        *states: Tensors, or (named) tuples or lists of states, alike in structure.

    Raises:
        TypeError: A state is something else.

    Example:
        >>> detached = map_state(torch.Tensor.detach, Block(4, BDLRU(4, block_size=2), conv_size=3).initial_state(5))
        >>> rows = map_state(lambda part: part[[0, 0, 3]], detached)
        >>> rows.mixer.shape, rows.convolution.shape
        (torch.Size([3, 2, 2]), torch.Size([3, 4, 2]))
    """
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(*states)
    if not isinstance(first, (tuple, list)):
        raise TypeError(f"state: got {type(first).__name__}, expected a tensor or a tuple or list of states")
    parts = [map_state(function, *those) for those in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def run_padded(run: Run, x: Tensor, state: State, mask: Tensor, *, keeps_zero: bool) -> tuple[Tensor, State]:
    """Run on the real tokens alone; y is zero at padding, and the state is the one behind each row's last real token.

    Args:
        run: What runs on x without padding.
        x: [B, T, ...].
        state: Of B sequences, or None.
        mask: bool [B, T], True where a token is real: one run of True in each row, or none.
        keeps_zero: Whether `run` takes a `LeftPadding`: zeros at the start leave an empty state as it is.

    Raises:
        TypeError: The mask is no bool tensor.
        ValueError: Its shape or device is wrong, or a row has a gap.
    """
    check_mask(mask, x)
    if x.shape[1] == 0:
        return run(x, state, None, None)
    runs = _real_runs(mask) if _is_readable(mask) else None
    if runs is not None and _rounds_by_shape(x.device):
        return _run_alone(run, x, state, runs)
    if keeps_zero and state is None:
        at_end = runs is not None and all(stop in (start, x.shape[1]) for start, stop in runs)
        return _run_left(run, x, mask) if at_end else _run_moved(run, x, mask)
    total = None if runs is None else sum(stop - start for start, stop in runs)
    return _run_packed(run, x, state, mask, total)


def check_mask(mask: Tensor, x: Tensor) -> None:
    """A bool tensor [B, T] on the device of x [B, T, ...]."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: got {type(mask).__name__}, expected a bool tensor [B, T]")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: got dtype {mask.dtype}, expected torch.bool (True where a token is real)")
    if mask.shape != x.shape[:2]:
        raise ValueError(f"mask: got shape {list(mask.shape)}, expected [B, T] = {list(x.shape[:2])}")
    if mask.device != x.device:
        raise ValueError(f"mask: got device {mask.device}, expected that of the input, {x.device}")


def _rounds_by_shape(device: torch.device) -> bool:
    """Whether sequences run alone, since a product of fewer rows may round otherwise."""
    return device.type == "cpu"


def _is_readable(mask: Tensor) -> bool:
    """Whether its numbers can be looked at: not while tracing or capturing, and not without memory."""
    if torch.compiler.is_compiling() or type(mask) is not Tensor or mask.is_meta:
        return False
    return not (mask.is_cuda and torch.cuda.is_current_stream_capturing())


def _real_runs(mask: Tensor) -> list[tuple[int, int]]:
    """Where each row's real tokens start and stop; ValueError for a row with a gap. Waits for a GPU once."""
    lengths, starts = mask.sum(1), mask.int().argmax(1)
    stops = torch.where(lengths > 0, mask.shape[1] - mask.flip(1).int().argmax(1), starts)
    runs = []
    for row, (start, stop, length) in enumerate(torch.stack([starts, stops, lengths], 1).tolist()):
        if stop - start != length:
            gap = start + mask[row, start:stop].tolist().index(False)
            raise ValueError(
                f"mask: row {row} is False at position {gap} between real tokens, expected one run of True in each row"
            )
        runs.append((start, stop))
    return runs


def _run_alone(run: Run, x: Tensor, state: State, runs: list[tuple[int, int]]) -> tuple[Tensor, State]:
    """One row after another, without its padding."""
    if not runs:
        return run(x, state, None, None)
    ys, states = [], []
    for row, (start, stop) in enumerate(runs):
        own = None if state is None else map_state(lambda part, s=row: part[s : s + 1], state)  # type: ignore[misc]
        y, after = run(x[row : row + 1, start:stop], own, None, None)
        ys.append(F.pad(y, (0, 0, start, x.shape[1] - stop)))
        states.append(after)
    return torch.cat(ys), map_state(_joined, *states)


def _joined(*parts: Tensor) -> Tensor:
    if len({part.shape for part in parts}) > 1:
        raise ValueError(
            "mask: got rows of several lengths, expected one length (a mixer's state grows with it)"
        )
    return torch.cat(parts)


def _run_left(run: Run, x: Tensor, mask: Tensor) -> tuple[Tensor, State]:
    """Where it is, padding as zeros."""
    y, state = run(_zeroed(x, mask), None, None, LeftPadding(mask))
    return _zeroed(y, mask), state


def _run_moved(run: Run, x: Tensor, mask: Tensor) -> tuple[Tensor, State]:
    """Rows turned until their real tokens stand at the end, and y turned back."""
    length = x.shape[1]
    steps = torch.arange(length, device=x.device)
    last = torch.where(mask, steps, -1).amax(1, keepdim=True)  # [B, 1]
    turn = last + 1  # place 0 takes what follows the last real token
    y, state = _run_left(run, _taken(x, (steps + turn) % length), mask.gather(1, (steps + turn) % length))
    return _taken(y, (steps - turn) % length), state


def _taken(x: Tensor, places: Tensor) -> Tensor:
    """x [B, T, ...] at places [B, T] of its rows."""
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(1), places]


def _run_packed(run: Run, x: Tensor, state: State, mask: Tensor, total: int | None) -> tuple[Tensor, State]:
    """In one row of `total` real tokens; None: of all places, padding being one more sequence behind the others."""
    flat = mask.flatten()
    order = torch.argsort(flat.int(), descending=True, stable=True)[:total]  # real ones first, row by row
    cu_seqlens = F.pad(mask.sum(1).cumsum(0), (1, 0))
    if total is None:
        cu_seqlens = torch.cat([cu_seqlens, cu_seqlens.new_full((1,), flat.shape[0])])
        state = None if state is None else map_state(_with_empty, state)
    y, state = run(_zeroed(x, mask).flatten(0, 1)[order].unsqueeze(0), state, cu_seqlens, None)
    if total is None:
        state = map_state(lambda part: part[:-1].clone(), state)
    back = y.new_zeros(flat.shape[0], y.shape[-1]).index_copy(0, order, y[0])
    return _zeroed(back.unflatten(0, mask.shape), mask), state


def _with_empty(part: Tensor) -> Tensor:
    """A state with one of zeros behind it."""
    return torch.cat([part, part.new_zeros(1, *part.shape[1:])])


def _zeroed(x: Tensor, mask: Tensor) -> Tensor:
    """x [B, T, ...], zero at padding."""
    return x.masked_fill(~mask.view(*mask.shape, *(1,) * (x.dim() - 2)), 0)
