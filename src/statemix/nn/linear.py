"""Linear layers whose weight is read past their forward, and what is done with them.

Adapters, hooks, parametrizations, pruning, quantisation, offloading and sharding all change what a call of a linear
layer does, and none of them changes what `linear.weight` looks like in the same way. So only the weight of a plain
`nn.Linear` is read; any other module is called.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.ops._torch_compat import is_compiled, is_hooked, is_ordinary_parameter, own_parameter
from statemix.ops.autograd import is_direct
from statemix.ops.lagged import lagged, window
from statemix.ops.layout import n_innermost
from statemix.ops.projection import LinearMap, Projection, reorders, unfold


def plain_map(module: nn.Module) -> LinearMap | None:
    """The two parameters of a module, if they are ordinary tensors and calling it is `F.linear` of them alone."""
    if type(module) is not nn.Linear or is_hooked(module) or is_compiled(module):
        return None
    weight, bias = own_parameter(module, "weight", False), own_parameter(module, "bias", False)
    ordinary = is_ordinary_parameter(weight) and is_ordinary_parameter(bias)
    return LinearMap(weight, bias) if ordinary else None


def input_dtype(linear: nn.Module, x: Tensor) -> torch.dtype | None:
    """What x has to be: the dtype of a plain linear layer; any other module says itself what it takes (None)."""
    weight = own_parameter(linear, "weight")
    if weight is None or weight.dtype == x.dtype or plain_map(linear) is None:
        return None
    return weight.dtype  # type: ignore[no-any-return]


def as_projection(linear: nn.Module, x: Tensor, layout: tuple[int, ...], *, gates: bool) -> Projection:
    """A plain linear layer as a map for `ops.projection`; of another module, and for one step, what a call makes."""
    plain = plain_map(linear) if x.dim() > 2 and x.shape[1] > 1 else None
    return unfold(linear(x), layout, gates=gates) if plain is None else plain


def read_out(linear: nn.Module, states: Tensor) -> Tensor:
    """linear, its columns (block, row), of states [B, T, N, m]: [B, T, dim], without a copy where it is plain."""
    plain = plain_map(linear)
    if plain is None:
        return linear(states.flatten(-2))
    if not reorders(states):
        return F.linear(states.flatten(-2), *plain)
    weight = plain.weight.unflatten(1, states.shape[-2:]).transpose(1, 2)  # [dim, m, N]
    return F.linear(states.transpose(-1, -2).flatten(-2), weight.flatten(1), plain.bias)


def read_out_window(
    linear: nn.Module, states: Tensor, taps: int, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> Tensor:
    """The causal read-out of H-LRU from states [B, T, N]: y_t = sum_{j < taps} W_j h_{t-j}, newest first in W.

    A plain linear layer takes a product a tap, so that the window [B, T, taps·N] is never built; where launches count
    and only autograd looks, it is built, and there is one product.
    """
    plain = plain_map(linear)
    if (
        taps > 1
        and cu_seqlens is None
        and not n_innermost(states.device)
        and is_direct((states, initial_state))
    ):
        rows = window(states, taps, initial_state).flatten(-2)
        return linear(rows) if plain is None else F.linear(rows, *plain)
    lags = (lagged(states, tap, initial_state, cu_seqlens) for tap in range(1, taps))
    if plain is None:
        return linear(torch.cat([states, *lags], dim=-1))
    newest, *others = plain.weight.split(states.shape[2], dim=1) if taps > 1 else [plain.weight]
    y = F.linear(states, newest, plain.bias)
    for weight, before in zip(others, lags, strict=True):
        y = y + F.linear(before, weight)
    return y
