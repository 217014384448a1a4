"""Zeros that are only read, made once: a state that starts at zero costs a call no launch."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from statemix.ops._torch_compat import current_stream, is_observed, is_ordinary

MAX_NUMBERS = 1 << 16
"""Larger zeros are made anew: their launch does not count beside the call's."""


def shared_zeros(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros on the device of a tensor, for a kernel to read. Nobody may write to them or hand them to a user.

    On a CUDA device they are the same in every call on a stream, where they were made before anything reads them. A
    CUDA graph gets zeros of its own, which live as long as the graph does; so does whoever looks at operators.
    """
    shared = like.is_cuda and not is_observed() and is_ordinary(like) and math.prod(shape) <= MAX_NUMBERS
    if not shared or torch.cuda.is_current_stream_capturing():
        return like.new_zeros(shape, dtype=dtype)
    return _zeros(tuple(shape), dtype, like.device, current_stream(like.device))


@lru_cache(maxsize=128)
def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, stream: int) -> Tensor:
    """Made outside of inference mode, whose tensors autograd may not save."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=dtype, device=device)
