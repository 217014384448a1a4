"""The fast memory format (N innermost, as channels_last is for images) and the dtype of the state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that carries the state: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def to_fast_order(tensor: Tensor) -> Tensor:
    """A view [B, T, N, ...] -> [B, T, ..., N]: contiguous exactly when the tensor is in the fast format."""
    return tensor.movedim(2, -1)


def from_fast_order(tensor: Tensor) -> Tensor:
    """A view [B, T, ..., N] -> [B, T, N, ...]."""
    return tensor.movedim(-1, 2)


def empty_fast(shape: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of logical shape [B, T, N, ...] whose memory has N innermost."""
    batch, length, blocks, *rest = shape
    return from_fast_order(like.new_empty((batch, length, *rest, blocks), dtype=dtype))
