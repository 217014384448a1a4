"""Linear projections whose outputs come out in the fast memory format (N innermost).

A projection's rows are kept in memory order (rows of a block outermost, blocks innermost); `block_major` and
`memory_major` translate to and from the field's usual order (block, row, column).
"""

from __future__ import annotations

import torch
from torch import Tensor


def memory_major(weight: Tensor, blocks: int, inner: int) -> Tensor:
    """Reorder the first dimension from (block, inner) to (inner, block)."""
    return weight.unflatten(0, (blocks, inner)).transpose(0, 1).flatten(0, 1)


def block_major(weight: Tensor, blocks: int, inner: int) -> Tensor:
    """Reorder the first dimension from (inner, block) to (block, inner)."""
    return weight.unflatten(0, (inner, blocks)).transpose(0, 1).flatten(0, 1)


def split_fast(projected: Tensor, *inner: int) -> Tensor:
    """[..., inner * N] with N innermost -> a view [..., N, *inner]."""
    shape = projected.shape[:-1]
    count = 1
    for size in inner:
        count *= size
    blocks = projected.shape[-1] // count
    return projected.reshape(*shape, *inner, blocks).movedim(-1, len(shape))


def join_fast(states: Tensor, inner_dims: int) -> Tensor:
    """[..., N, *inner] -> [..., inner * N] with N innermost: no copy when the memory is in the fast format."""
    return states.movedim(-1 - inner_dims, -1).flatten(-1 - inner_dims)


def check_input(name: str, x: Tensor, shape: tuple[int | str, ...], letters: str, dtype: torch.dtype) -> None:
    """A float tensor [B, T, dim] or [B, dim], in the layer's dtype unless autocast reigns: TypeError or ValueError
    naming what came."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: got {type(x).__name__}, expected a tensor {letters}")
    if not torch.is_floating_point(x):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected a floating-point tensor {letters}")
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name}: got dtype {x.dtype}, expected that of the layer's parameters, {dtype}")
    if x.dim() != len(shape) or x.shape[-1] != shape[-1]:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name}: got shape {list(x.shape)}, expected {letters} = [{wanted}]")


def check_size(name: str, size: int, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"{name}: got {size!r}, expected a whole number")
    if size < least:
        raise ValueError(f"{name}: got {size}, expected at least {least}")
    return size
