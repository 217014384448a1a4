"""What the gates do while a model reads: how much of a state is left some tokens later, and which never open."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from statemix.analysis.accounting import mixers
from statemix.analysis.spectra import inputs_of
from statemix.nn import BDLRU, HLRU
from statemix.ops import normalize


@torch.no_grad()
def left_after(model: nn.Module, tokens: Tensor, lag: int) -> list[Tensor]:
    """How much of the state before the first of the tokens [B, T] is left in every block after `lag` of them.

    Returns one float64 tensor [B, N] for every BDLRU and HLRU, in order: the ∞-norm of A_lag ⋯ A_1, which is the
    most that a number of the state can change when the state before changes by 1. Where the normalisation bounds the
    rows it is at most 1; an exact 0 means that the block has forgotten everything, and that no gradient passes.
    Errors: ValueError for a lag below 1 or above T. Source: arXiv 2602.12021, proposition 1.
    """
    if not 1 <= lag <= tokens.shape[1]:
        raise ValueError(f"lag: got {lag}, expected 1 to {tokens.shape[1]}, the number of tokens")
    return [_left(layer, x[:, :lag]) for layer, x in _read(model, tokens)]


@torch.no_grad()
def silent_gates(model: nn.Module, tokens: Tensor) -> float:
    """The share of the gates of all BDLRU and HLRU that are exactly 0 at every one of the tokens [B, T].

    Only the "relu" normalisation has such gates; on these tokens no gradient reaches what makes them.
    """
    silent = [
        (normalize(layer.raw_gates(x), layer.normalization) == 0).all(dim=1).all(dim=0).flatten()
        for layer, x in _read(model, tokens)
    ]
    return torch.cat(silent).double().mean().item()


def _read(model: nn.Module, tokens: Tensor) -> list[tuple[BDLRU | HLRU, Tensor]]:
    """The layers, each with its input while the model reads the tokens. ValueError for a model without any."""
    layers = [mixer for mixer in mixers(model) if isinstance(mixer, (BDLRU, HLRU))]
    if not layers:
        raise ValueError("model: it has no BDLRU and no HLRU, expected at least one")
    return list(zip(layers, inputs_of(model, layers, tokens), strict=True))


def _left(layer: BDLRU | HLRU, x: Tensor) -> Tensor:
    """The norm of the product of the transitions on x [B, lag, dim], a column at a time: the recurrence carries each
    unit state through without input."""
    gates, values = layer.raw_gates(x).double(), torch.zeros_like(layer.raw_values(x), dtype=torch.float64)
    nothing = layer.initial_state(len(x)).double()
    columns = []
    for number in range(nothing.shape[-1]):
        state = nothing.clone()
        state[..., number] = 1.0
        columns.append(layer.scan(gates, values, state, normalization=layer.normalization)[1])
    return torch.stack(columns, dim=-1).abs().sum(dim=-1).amax(dim=-1)


def memory_summary(left: Sequence[Tensor]) -> dict[str, float]:
    """{"left": the median over all blocks, "forgotten": the share of the blocks with nothing left at all}."""
    every = torch.cat([one.flatten() for one in left])
    return {"left": every.median().item(), "forgotten": (every == 0).double().mean().item()}
