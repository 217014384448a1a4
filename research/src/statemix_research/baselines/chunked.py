"""Recurrences with the steps of a chunk computed at once, in plain torch: on every device, in any float dtype."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from statemix_research.baselines.recurrences import least_norm

CHUNK = 64

State = TypeVar("State")
MLSTMState = tuple[Tensor, Tensor, Tensor]


def chunkwise(one_chunk: Callable[..., tuple[Tensor, State]]) -> Callable[..., tuple[Tensor, State]]:
    """A recurrence of `one_chunk`: the arguments, by name, and results of the loop in `recurrences`.

    It goes through time up to `chunk` steps of the longest tensor [B, n T, H, ...] at once, each tensor with its own n.
    one_chunk: takes pieces [B, H, n L, ...] by name and `state`, returns outputs [B, H, L, V] and the state after them.
    """

    @functools.wraps(one_chunk)
    def run(*, initial_state: State, chunk: int = CHUNK, **tensors: Tensor) -> tuple[Tensor, State]:
        lengths, outputs, state = [one.shape[1] for one in tensors.values()], [], initial_state
        steps = min(lengths)
        tokens = max(1, chunk * steps // max(lengths))
        sizes = [length // steps * tokens for length in lengths]
        heads_first = (
            one.transpose(1, 2).split(size, 2) for one, size in zip(tensors.values(), sizes, strict=True)
        )
        for pieces in zip(*heads_first, strict=True):
            y, state = one_chunk(**dict(zip(tensors, pieces, strict=True)), state=state)
            outputs.append(y)
        return torch.cat(outputs, 2).transpose(1, 2), state

    return run


@chunkwise
def simple_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, state: Tensor) -> tuple[Tensor, Tensor]:
    """q, k [B, H, L, K], v [B, H, L, V], g [B, H, L], state [B, H, K, V] -> ([B, H, L, V], state).

    Source: arXiv 2405.21060, section 6.
    """
    kept = g.cumsum(-1).exp().unsqueeze(-1)  # what is left at t of the state before the chunk
    weights = _sums_since(g).exp().tril()  # [B, H, t, j]: what is left at t of what step j wrote
    scores = (q @ k.transpose(-1, -2)) * weights
    y = scores @ v + kept * (q @ state)
    left = k * weights[..., -1, :].unsqueeze(-1)
    return y, kept[..., -1:, :] * state + left.transpose(-1, -2) @ v


@chunkwise
def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor | None = None, *, state: Tensor
) -> tuple[Tensor, Tensor]:
    """q [B, H, L, K], g [B, H, L], k [B, H, L n, K], v [B, H, L n, V], beta [B, H, L n] -> ([B, H, L, V], state).

    What a step writes depends on what those before it wrote: a triangular system, solved for the whole chunk at once.
    Source: arXiv 2406.06484 (section 3), arXiv 2412.06464 (with g).
    """
    g = torch.zeros_like(q[..., 0]) if g is None else g
    n = k.shape[2] // q.shape[2]
    decays = F.pad(g.unsqueeze(-1), (0, n - 1)).flatten(-2)  # a token forgets before the first of its writes
    kept = decays.cumsum(-1).exp().unsqueeze(-1)
    weights = _sums_since(decays).exp().tril()  # [B, H, t, j]: what is left at write t of what j wrote
    overlap = beta.unsqueeze(-1) * weights * (k @ k.transpose(-1, -2))
    missing = beta.unsqueeze(-1) * (v - kept * (k @ state))
    written = torch.linalg.solve_triangular(overlap.tril(-1), missing, upper=False, unitriangular=True)
    ends = slice(n - 1, None, n)
    scores = (q @ k.transpose(-1, -2)) * weights[..., ends, :]
    y = scores @ written + kept[..., ends, :] * (q @ state)
    left = k * weights[..., -1, :].unsqueeze(-1)
    return y, kept[..., -1:, :] * state + left.transpose(-1, -2) @ written


@chunkwise
def rwkv7(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, *, state: Tensor
) -> tuple[Tensor, Tensor]:
    """r, w, k, a, b [B, H, L, K], v [B, H, L, V] -> ([B, H, L, V], state).

    -w added up over a chunk is at most 80, or float32 runs over; a layer's is at most 39. Source: arXiv 2503.14456.
    Divided by what is left of the state, a step only adds: k vᵀ and b removedᵀ, where removed = S_{t-1}ᵀ a_t solves a
    triangular system, as that depends on what the steps before removed.
    """
    total = w.cumsum(-2)
    left, before = total.exp(), (total - w).exp()  # of the state before the chunk, after step t and before it
    k, b = k / left, b / left
    a, r = a * before, r * left
    again, new = (a @ b.transpose(-1, -2)).tril(-1), (a @ k.transpose(-1, -2)).tril(-1)
    removed = torch.linalg.solve_triangular(-again, new @ v + a @ state, upper=False, unitriangular=True)
    y = (r @ b.transpose(-1, -2)).tril() @ removed + (r @ k.transpose(-1, -2)).tril() @ v + r @ state
    added = b.transpose(-1, -2) @ removed + k.transpose(-1, -2) @ v
    return y, left[..., -1, :].unsqueeze(-1) * (state + added)


@chunkwise
def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *, state: MLSTMState
) -> tuple[Tensor, MLSTMState]:
    """q, k, v [B, H, L, d], i, f [B, H, L] -> ([B, H, L, d], state)."""
    memory, norm, top = state
    kept = F.logsigmoid(f).cumsum(-1)  # log of what is kept from before the chunk to t
    # [B, H, t, j]: log weight of step j at t
    logs = kept.unsqueeze(-1) - kept.unsqueeze(-2) + i.unsqueeze(-2)
    future = torch.ones(logs.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    logs = logs.masked_fill(future, -torch.inf)
    before = kept + top.unsqueeze(-1)
    tops = torch.maximum(logs.amax(-1), before)  # [B, H, L]
    scores = (q @ k.transpose(-1, -2)) * (logs - tops.unsqueeze(-1)).exp()
    carried = (before - tops).exp().unsqueeze(-1)
    total = scores.sum(-1, keepdim=True) + carried * (q @ norm.unsqueeze(-1))
    y = (scores @ v + carried * (q @ memory)) / torch.maximum(total.abs(), least_norm(tops).unsqueeze(-1))
    last, left = tops[..., -1], carried[..., -1, :]
    added = k * (logs[..., -1, :] - last.unsqueeze(-1)).exp().unsqueeze(-1)  # [B, H, L, d]
    memory = left.unsqueeze(-1) * memory + added.transpose(-1, -2) @ v
    return y, (memory, left * norm + added.sum(-2), last)


def _sums_since(g: Tensor) -> Tensor:
    """g [..., L] -> [..., t, j]: g_{j+1} + … + g_t, 0 for j >= t.

    Each is added up by itself: a difference of two sums from the start loses what is small behind a large g.
    """
    steps = g.unsqueeze(-1).expand(*g.shape, g.shape[-1])
    return steps.tril(-1).cumsum(-2)
