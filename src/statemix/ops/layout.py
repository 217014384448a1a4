"""The fast memory formats, one for each kind of device, and the dtype of the state.

On the CPU the blocks N are innermost in gates, values and states, as channels are in channels_last images: vectors
run along N.
Elsewhere gate planes are outermost: the gates of one column j lie together, laid out like the values, which are
plainly contiguous. Threads that read neighbouring values then read neighbouring gates as well. A carried state is
plainly contiguous on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Role = Literal["gates", "values", "state"]
"""What a tensor is: gates [B, T, N, ..., j], values or states [B, T, N, ...], or a carried state [S, N, m]."""


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that carries the state: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def n_innermost(device: torch.device) -> bool:
    """Whether the fast format of a device has N innermost; else it has gate planes outermost."""
    return device.type == "cpu"


def _move(role: Role, device: torch.device) -> tuple[int, int]:
    """The one dimension that moves between the logical order and the order of memory: from where to where."""
    if role == "state":
        return 0, 0
    if n_innermost(device):
        return 2, -1
    return (-1, 2) if role == "gates" else (0, 0)


def to_fast_order(tensor: Tensor, role: Role) -> Tensor:
    """A view in the order of memory: contiguous exactly when the tensor is in its device's fast format."""
    return tensor.movedim(*_move(role, tensor.device))


def in_fast_format(tensor: Tensor, role: Role) -> Tensor:
    """A tensor in the memory format that the kernels of its device read fastest; any other is right as well.

    Args:
        tensor: Gates [B, T, N, ..., j], values [B, T, N, ...] or a carried state [S, N, m].
        role: "gates", "values" or "state".

    Returns:
        The tensor itself when it is in that format, else a copy that is (of its own storage, no view).

    Example:
        >>> in_fast_format(torch.zeros(1, 10, 8, 4), "values").stride()  # on the CPU N is innermost
        (320, 32, 1, 8)
    """
    if role == "state":
        return tensor.contiguous()
    source, target = _move(role, tensor.device)
    ordered = tensor if source == target else tensor.movedim(source, target)
    return tensor if ordered.is_contiguous() else empty_fast(tensor, role).copy_(tensor)


def empty_fast(like: Tensor, role: Role, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor of the shape and device of `like`, in the fast format: its own storage, no view."""
    if role == "state":
        return like.new_empty(like.shape, dtype=dtype)
    return like.new_empty_strided(
        like.shape, fast_strides(like.shape, *_move(role, like.device)), dtype=dtype
    )


def fast_strides(shape: Sequence[int], source: int, target: int) -> list[int]:
    """The strides of a tensor that is contiguous once dimension `source` is moved to `target`."""
    order = list(range(len(shape)))
    order.insert(target % len(shape), order.pop(source))
    strides, numbers = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim] = numbers
        numbers *= shape[dim]
    return strides


def split_gates_values(gates_values: Tensor, inner: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Views of a tensor [B, T, (C + 1) H] as C planes of gates, then values [B, T, *inner] of H numbers a step."""
    width = math.prod(inner)
    gates, values = gates_values[..., :-width], gates_values[..., -width:]
    return gates.unflatten(-1, (-1, *inner)).movedim(2, -1), values.unflatten(-1, inner)
