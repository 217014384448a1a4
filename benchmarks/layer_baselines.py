"""Layers of other packages, and how each is sized to a number of parameters.

A baseline is data: where it comes from, how many of its units (heads, channels, …) come near a number of parameters,
and how it is built from them. Every layer maps x [B, T, width] to y [B, T, width], alone or first in a tuple.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmarks.measure import Baseline


@dataclass(frozen=True)
class LayerBaseline(Baseline):
    """A layer, by `units(dim, parameters)`, its size, `build(dim, units)`, and `width(dim, units)`, what it maps."""

    units: Callable[[int, int], int]
    build: Callable[[int, int], nn.Module]
    width: Callable[[int, int], int] = lambda dim, units: dim
    cuda_graph: bool = True
    """Whether it can be captured; otherwise it is launched."""


def _fla(name: str, **arguments: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fla.layers

        return getattr(fla.layers, name)(mode="chunk", **arguments)


def _from_fla(
    description: str, per_unit: int, name: str, arguments: Callable[[int, int], dict[str, Any]]
) -> LayerBaseline:
    """A layer of fla with about dim · per_unit parameters a unit; `arguments(dim, units)` are its constructor's."""
    return LayerBaseline(
        description, "fla", True,
        lambda dim, parameters: max(1, round(parameters / (per_unit * dim))),
        lambda dim, units: _fla(name, hidden_size=dim, **arguments(dim, units)),
    )  # fmt: skip


def _lstm_units(dim: int, parameters: int) -> int:
    """Eighths of the hidden size: 4 hidden² + 5 dim hidden parameters."""
    return max(1, round((-5 * dim + math.sqrt(25 * dim * dim + 16 * parameters)) / 64))


def _lstm(dim: int, units: int) -> nn.Module:
    from statemix_research.baselines.lstm import LSTM

    return LSTM(dim, hidden_size=8 * units)


def _rwkv7_parameters(width: int) -> int:
    """Of an RWKV-7 layer, the first of its model: four square matrices and the low-rank ones."""

    def rank(factor: float) -> int:
        return max(32, round(factor * math.sqrt(width) / 32) * 32)

    return 4 * width * width + 2 * width * (2 * rank(2.5) + rank(5.0))


def _rwkv7(description: str, units: Callable[[int, int], int]) -> LayerBaseline:
    """fla's RWKV7Attention with `units` heads of 64, which set its width."""

    def build(dim: int, heads: int) -> nn.Module:
        settings = {"head_dim": 64, "layer_idx": 0, "num_hidden_layers": 12, "fuse_norm": True}
        return _fla("RWKV7Attention", hidden_size=64 * heads, **settings)

    return LayerBaseline(description, "fla", True, units, build, lambda dim, heads: 64 * heads)


BASELINES: dict[str, LayerBaseline] = {
    "DeltaNet": _from_fla(
        "fla DeltaNet, heads of 128, short convolutions", 4 * 128, "DeltaNet",
        lambda dim, n: {"num_heads": n, "expand_k": 128 * n / dim, "expand_v": 128 * n / dim},
    ),
    "GatedDeltaNet": _from_fla(
        "fla GatedDeltaNet, heads of 128, values twice as wide, short convolutions, output gate",
        8 * 128, "GatedDeltaNet", lambda dim, n: {"head_dim": 128, "num_heads": n, "expand_v": 2},
    ),
    "GatedDeltaProduct": _from_fla(
        "fla GatedDeltaProduct, 2 Householder factors, else as GatedDeltaNet", 11 * 128, "GatedDeltaProduct",
        lambda dim, n: {"head_dim": 128, "num_heads": n, "expand_v": 2, "num_householder": 2},
    ),
    "RWKV7": _rwkv7(
        "fla RWKV7Attention, heads of 64, sized by its width",
        lambda dim, p: min(range(1, 128), key=lambda heads: abs(_rwkv7_parameters(64 * heads) - p)),
    ),
    "RWKV7 default": _rwkv7(
        "fla RWKV7Attention at the width of BD-LRU, BD-LRU sized to it", lambda dim, p: dim // 64
    ),
    "HGRN": _from_fla(
        "fla HGRNAttention", 4 * 64, "HGRNAttention", lambda dim, n: {"expand_ratio": 64 * n / dim}
    ),
    "GLA": _from_fla(
        "fla GatedLinearAttention, heads of 128, values twice as wide, output gate", 8 * 128, "GatedLinearAttention",
        lambda dim, n: {"num_heads": n, "expand_k": 128 * n / dim, "expand_v": 256 * n / dim},
    ),
    "LSTM": LayerBaseline(
        "torch.nn.LSTM (cuDNN on a GPU) and a linear read-out", "torch", False, _lstm_units, _lstm, cuda_graph=False
    ),
}  # fmt: skip
