"""Other people's layers, and how each is sized to a number of parameters.

A rival is data: where it comes from, how many of its units (heads, channels, …) come near a number of parameters, and
how it is built from them. Every layer maps x [B, T, width] to y [B, T, width].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from benchmarks.packages import FLA, TORCH, Package


class LayerRival(NamedTuple):
    """A layer of others.

    `units(dim, parameters)` is the size, `build(dim, units)` the layer, `width(dim, units)` what it maps.
    """

    description: str
    package: Package
    needs_gpu: bool
    units: Callable[[int, int], int]
    build: Callable[[int, int], nn.Module]
    width: Callable[[int, int], int] = lambda dim, units: dim
    captured: bool = True
    """Whether a CUDA graph can hold it; otherwise it is launched."""


def _nearest(parameters: float, per_unit: float) -> int:
    return max(1, round(parameters / per_unit))


def _fla(name: str, **arguments: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fla.layers

        return getattr(fla.layers, name)(mode="chunk", **arguments)


class ProjectedLSTM(nn.Module):
    """torch's LSTM and a linear read-out back to the width, as the paper uses it."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> y [B, T, D]."""
        return self.readout(self.lstm(x)[0])


def _lstm_units(dim: int, parameters: int) -> int:
    """Eighths of the hidden size: 4 hidden² + 5 dim hidden parameters."""
    return max(1, round((-5 * dim + math.sqrt(25 * dim * dim + 16 * parameters)) / 64))


def _rwkv_parameters(width: int) -> int:
    """Of an RWKV-7 layer, the first of its model: four square matrices and the low-rank ones."""

    def rank(factor: float) -> int:
        return max(32, round(factor * math.sqrt(width) / 32) * 32)

    return 4 * width * width + 2 * width * (2 * rank(2.5) + rank(5.0))


def _rwkv_units(dim: int, parameters: int) -> int:
    """Heads of 64, which here set the width: nothing else of this layer can be sized."""
    return min(range(1, 128), key=lambda heads: abs(_rwkv_parameters(64 * heads) - parameters))


def _rwkv(width: int) -> nn.Module:
    return _fla(
        "RWKV7Attention", hidden_size=width, head_dim=64, layer_idx=0, num_hidden_layers=12, fuse_norm=True
    )


RIVALS: dict[str, LayerRival] = {
    "DeltaNet": LayerRival(
        "fla DeltaNet, heads of 128, short convolutions", FLA, True,
        lambda dim, p: _nearest(p, 4 * dim * 128),
        lambda dim, n: _fla("DeltaNet", hidden_size=dim, num_heads=n, expand_k=128 * n / dim, expand_v=128 * n / dim),
    ),
    "GatedDeltaNet": LayerRival(
        "fla GatedDeltaNet, heads of 128, values twice as wide, short convolutions, output gate", FLA, True,
        lambda dim, p: _nearest(p, 8 * dim * 128),
        lambda dim, n: _fla("GatedDeltaNet", hidden_size=dim, head_dim=128, num_heads=n, expand_v=2),
    ),
    "GatedDeltaProduct": LayerRival(
        "fla GatedDeltaProduct, 2 Householder factors, else as GatedDeltaNet", FLA, True,
        lambda dim, p: _nearest(p, 11 * dim * 128),
        lambda dim, n: _fla(
            "GatedDeltaProduct", hidden_size=dim, head_dim=128, num_heads=n, expand_v=2, num_householder=2
        ),
    ),
    "RWKV7": LayerRival(
        "fla RWKV7Attention, heads of 64, sized by its width", FLA, True,
        _rwkv_units, lambda dim, n: _rwkv(64 * n), lambda dim, n: 64 * n,
    ),
    "RWKV7 default": LayerRival(
        "fla RWKV7Attention at the width of ours, ours sized to it", FLA, True,
        lambda dim, p: dim // 64, lambda dim, n: _rwkv(64 * n), lambda dim, n: 64 * n,
    ),
    "HGRN": LayerRival(
        "fla HGRNAttention", FLA, True,
        lambda dim, p: _nearest(p, 4 * dim * 64),
        lambda dim, n: _fla("HGRNAttention", hidden_size=dim, expand_ratio=64 * n / dim),
    ),
    "GLA": LayerRival(
        "fla GatedLinearAttention, heads of 128, values twice as wide, output gate", FLA, True,
        lambda dim, p: _nearest(p, 8 * dim * 128),
        lambda dim, n: _fla(
            "GatedLinearAttention", hidden_size=dim, num_heads=n, expand_k=128 * n / dim, expand_v=256 * n / dim
        ),
    ),
    "LSTM": LayerRival(
        "torch.nn.LSTM (cuDNN on a GPU) and a linear read-out", TORCH, False,
        _lstm_units, lambda dim, n: ProjectedLSTM(dim, 8 * n), captured=False,
    ),
}  # fmt: skip


def choose(text: str) -> list[str]:
    """ "all", "none" or comma-separated names -> names; ValueError for an unknown one."""
    names = {"all": list(RIVALS), "none": []}.get(text, text.split(","))
    for name in names:
        if name not in RIVALS:
            raise ValueError(f"rivals: got {name!r}, expected all, none or some of {','.join(RIVALS)}")
    return names
