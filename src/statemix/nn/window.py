"""The m-tap causal read-out of H-LRU: y_t = sum_j W_j h_{t-j}."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.plain import is_plain
from statemix.ops.lagged import lagged


def window_readout(
    linear: nn.Module,
    states: Tensor,
    taps: int,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> Tensor:
    """y_t = sum_{j < taps} W_j h_{t-j}; before the start h comes from the carried state, or is zero.

    linear: its weight is [dim, taps·N], tap 0 (newest) first; states: [B, T, N]; initial_state: [S, N, m], newest
    first; cu_seqlens: [S+1] as in the scan. Returns [B, T, dim].
    A plain linear layer takes one matrix product a tap, accumulated over shifted states, so that the window
    [B, T, taps·N] is never built; another module is called on the window.
    Source: arXiv 2602.12021, the H-LRU read-out.
    """
    lags = (lagged(states, tap, initial_state, cu_seqlens) for tap in range(1, taps))
    if not is_plain(linear):
        return linear(torch.cat([states, *lags], dim=-1))
    newest, *others = linear.weight.split(states.shape[2], dim=1) if taps > 1 else [linear.weight]
    y = F.linear(states, newest, linear.bias)
    for weight, before in zip(others, lags, strict=True):
        y = y + F.linear(before, weight)
    return y
