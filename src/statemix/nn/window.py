"""The m-tap causal read-out of H-LRU: y_t = sum_j W_j h_{t-j}, without building the [B, T, N·m] window."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def window_readout(
    states: Tensor,
    weight: Tensor,
    taps: int,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """y_t = sum_{j < taps} W_j h_{t-j}; before the start h comes from the carried state, or is zero.

    states: [B, T, N]; weight: [dim, taps·N], tap 0 (newest) first; initial_state: [S, N, m], newest first;
    cu_seqlens: [S+1] as in the scan. Returns [B, T, dim].
    Each tap is one matrix product, accumulated over shifted states. Source: arXiv 2602.12021, the H-LRU read-out.
    """
    channels = states.shape[2]
    y = F.linear(states, weight[:, :channels])
    for tap in range(1, taps):
        lagged = _lag(states, tap, initial_state, cu_seqlens)
        y = y + F.linear(lagged, weight[:, tap * channels : (tap + 1) * channels])
    return y


def _lag(states: Tensor, tap: int, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
    """h_{t-tap} for every t, [B, T, N]: the states shifted, their first `tap` steps from the carried state."""
    if cu_seqlens is not None:
        return _lag_packed(states, tap, initial_state, cu_seqlens)
    batch, length, channels = states.shape
    if initial_state is None:
        before = states.new_zeros(batch, tap, channels)
    else:  # carried window newest first: lag `tap` of step 0 is entry tap-1, of step 1 entry tap-2, …
        before = initial_state[..., :tap].flip(-1).transpose(1, 2).to(states.dtype)  # [B, tap, N]
    return torch.cat([before, states], dim=1)[:, :length]


def _lag_packed(states: Tensor, tap: int, initial_state: Tensor | None, cu_seqlens: Tensor) -> Tensor:
    """`_lag` for packed sequences [1, T, N]: a step less than `tap` from its start looks into its own state."""
    length = states.shape[1]
    bounds = cu_seqlens.to(torch.int64)
    steps = torch.arange(length, device=states.device)
    sequence = torch.searchsorted(bounds[1:].contiguous(), steps, right=True)  # [T]
    age = steps - bounds[sequence]  # steps since the start of the sequence
    inside = states[0, (steps - tap).clamp(min=0)]  # [T, N]
    if initial_state is None:
        before = torch.zeros_like(inside)
    else:
        entry = (tap - 1 - age).clamp(min=0)
        before = initial_state[sequence, :, entry].to(states.dtype)  # [T, N]
    return torch.where((age >= tap).unsqueeze(-1), inside, before).unsqueeze(0)
