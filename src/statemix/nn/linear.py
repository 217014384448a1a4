"""Linear layers whose weight is read past their forward, and what is done with them.

Adapters, hooks, parametrizations, pruning, quantisation, offloading and sharding all change what a call of a linear
layer does, and none of them changes what `linear.weight` looks like in the same way. So only the weight of a plain
`nn.Linear` is read; any other module is called.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.ops._torch_compat import is_compiled, is_hooked, is_ordinary_parameter, own_parameter
from statemix.ops.lagged import lagged
from statemix.ops.projection import LinearMap, Projection, reorders, unfold


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether calling the module is `F.linear` of its two parameters, ordinary tensors, and nothing else."""
    return (
        type(module) is nn.Linear
        and not is_hooked(module)
        and not is_compiled(module)
        and is_ordinary_parameter(own_parameter(module, "weight", False))
        and is_ordinary_parameter(own_parameter(module, "bias", False))
    )


def input_dtype(linear: nn.Module, x: Tensor) -> torch.dtype | None:
    """What x has to be: the dtype of a plain linear layer; any other module says itself what it takes (None)."""
    weight = own_parameter(linear, "weight")
    if weight is None or weight.dtype == x.dtype or not is_plain(linear):
        return None
    return weight.dtype  # type: ignore[no-any-return]


def as_projection(linear: nn.Module, x: Tensor, layout: tuple[int, ...], *, gates: bool) -> Projection:
    """A plain linear layer as a map for `ops.projection`; of another module, and for one step, what a call makes."""
    if x.dim() > 2 and x.shape[1] > 1 and is_plain(linear):
        return LinearMap(linear.weight, linear.bias)
    return unfold(linear(x), layout, gates=gates)


def read_out(linear: nn.Module, states: Tensor) -> Tensor:
    """linear, its columns (block, row), of states [B, T, N, m]: [B, T, dim], without a copy where it is plain."""
    if not reorders(states) or not is_plain(linear):
        return linear(states.flatten(-2))
    weight = linear.weight.unflatten(1, states.shape[-2:]).transpose(1, 2)  # [dim, m, N]
    return F.linear(states.transpose(-1, -2).flatten(-2), weight.flatten(1), linear.bias)


def read_out_window(
    linear: nn.Module, states: Tensor, taps: int, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> Tensor:
    """The causal read-out of H-LRU from states [B, T, N]: y_t = sum_{j < taps} W_j h_{t-j}, newest first in W.

    A plain linear layer takes a product a tap, so that the window [B, T, taps·N] is never built.
    """
    lags = (lagged(states, tap, initial_state, cu_seqlens) for tap in range(1, taps))
    if not is_plain(linear):
        return linear(torch.cat([states, *lags], dim=-1))
    newest, *others = linear.weight.split(states.shape[2], dim=1) if taps > 1 else [linear.weight]
    y = F.linear(states, newest, linear.bias)
    for weight, before in zip(others, lags, strict=True):
        y = y + F.linear(before, weight)
    return y
