"""The states of some steps ago: what an H-LRU reads out, a convolution sums and a scan's tangent is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from statemix.ops.zeros import shared_zeros


def lagged(states: Tensor, lag: int, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
    """h_{t-lag} for every t: states [B, T, N] shifted; their first `lag` steps from the carried state.

    initial_state: [S, N, k] with k >= lag, newest first, or None (zeros); cu_seqlens: [S+1] as in the scans.
    """
    if cu_seqlens is not None:
        return _lagged_packed(states, lag, initial_state, cu_seqlens)
    batch, length, channels = states.shape
    if initial_state is None:
        before = states.new_zeros(batch, lag, channels)
    else:  # newest first: lag `lag` of step 0 is entry lag-1, of step 1 entry lag-2, …
        before = initial_state[..., :lag].flip(-1).transpose(1, 2).to(states.dtype)  # [B, lag, N]
    return torch.cat([before, states], dim=1)[:, :length]


def _lagged_packed(states: Tensor, lag: int, initial_state: Tensor | None, cu_seqlens: Tensor) -> Tensor:
    """`lagged` for packed sequences [1, T, N]: a step less than `lag` from its start looks into its own state."""
    length = states.shape[1]
    bounds = cu_seqlens.to(states.device, torch.int64)
    steps = torch.arange(length, device=states.device)
    sequence = torch.searchsorted(bounds, steps, right=True) - 1  # [T]
    age = steps - bounds[sequence]  # steps since the start of the sequence
    inside = states[0, (steps - lag).clamp(min=0)]  # [T, N]
    if initial_state is None:
        before = torch.zeros_like(inside)
    else:
        entry = (lag - 1 - age).clamp(min=0)
        before = initial_state[sequence, :, entry].to(states.dtype)  # [T, N]
    return torch.where((age >= lag).unsqueeze(-1), inside, before).unsqueeze(0)


def newest(x: Tensor, before: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """The last k of x [B, T, N] and of what came before them [S, N, k], newest first, with memory of their own.

    A sequence shorter than k keeps some of what came before.
    """
    if x.shape[1] == 0:
        return before.clone()
    back = torch.arange(before.shape[2], device=x.device)  # [k]
    if cu_seqlens is None:
        length = x.shape[1]
        inside = x[:, (length - 1 - back).clamp(min=0)]  # [B, k, N]
        older = before[..., (back - length).clamp(min=0)]
    else:
        bounds = cu_seqlens.to(x.device, torch.int64)
        length = bounds.diff()[:, None, None]  # type: ignore[assignment] # [S, 1, 1]
        inside = x[0, (bounds[1:, None] - 1 - back).clamp(min=0)]  # [S, k, N]
        older = before.gather(2, (back - length).clamp(min=0).expand_as(before))
    return torch.where(back < length, inside.transpose(1, 2).to(before.dtype), older).contiguous()


def window(states: Tensor, taps: int, initial_state: Tensor | None) -> Tensor:
    """The last states at every step, newest first: states [B, T, N] -> [B, T, taps, N].

    initial_state: [B, N, k] with k >= taps - 1, newest first, or None (zeros). Differentiable any number of times in
    reverse mode. Two launches, and three for the gradient.
    """
    (batch, _, channels), lags = states.shape, taps - 1
    if initial_state is None:
        before = shared_zeros(states, (batch, lags, channels), states.dtype)
    else:
        before = initial_state[..., :lags].flip(-1).transpose(1, 2).to(states.dtype)
    return Window.apply(torch.cat([before, states], dim=1), taps)  # type: ignore[no-any-return]


class Window(torch.autograd.Function):
    """x [B, T + taps - 1, N], oldest first -> [B, T, taps, N]: entry (t, j) is x[t + taps - 1 - j]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: int) -> Tensor:
        """Every tap is a slice."""
        ctx.taps, length = taps, x.shape[1] - taps + 1
        return torch.stack([x[:, start : start + length] for start in reversed(range(taps))], dim=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The adjoint."""
        return WindowAdjoint.apply(grad), None


class WindowAdjoint(torch.autograd.Function):
    """Gradients of a window [B, T, taps, N] -> of what it was made of [B, T + taps - 1, N]."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor) -> Tensor:
        """x[s] is entry (s - taps + 1 + j, j) for all j: with zeros around, a sum along a diagonal."""
        batch, length, ctx.taps, channels = grad.shape
        lags, row = ctx.taps - 1, ctx.taps * channels
        padded = grad.new_empty(batch, length + 2 * lags, ctx.taps, channels)
        middle = slice(lags, lags + length)
        padded[:, :lags], padded[:, middle], padded[:, middle.stop :] = 0, grad, 0
        sizes = (batch, length + lags, ctx.taps, channels)
        return padded.as_strided(sizes, (padded.stride(0), row, row + channels, 1)).sum(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        """The window of it."""
        return Window.apply(grad, ctx.taps)  # type: ignore[no-any-return]
