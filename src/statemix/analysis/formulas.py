"""What each class of mixer costs, as formulas of its sizes: one table.

Arithmetic is that of the recurrence for one token: every multiplication, addition and division on or with the state,
and its reading by a query where the layer has one. Projections, convolutions, norms and the functions that make gates
are not counted. A context of c tokens matters to attention alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from statemix_research.baselines.attention import Attention
from statemix_research.baselines.deltanet import DeltaLayer
from statemix_research.baselines.lru import LRU
from statemix_research.baselines.lstm import LSTM
from statemix_research.baselines.mamba2 import Mamba2
from statemix_research.baselines.mlstm import MLSTM
from statemix_research.baselines.pdssm import PDSSM
from statemix_research.baselines.rwkv7 import RWKV7
from statemix_research.baselines.slstm import SLSTM
from torch import nn

from statemix.nn import BDLRU, HLRU

Count = Callable[[Any, int], int]
"""A number for a layer and the tokens it has seen."""


class Formulas(NamedTuple):
    """Per mixer: trained numbers, numbers carried per sequence, arithmetic and state traffic per token."""

    parameters: Count
    state_size: Count
    flops_per_step: Count
    traffic: Count
    """Numbers of state read and written to decode one token."""


def _rewritten(parameters: Count, state_size: Count, flops_per_step: Count) -> Formulas:
    """A state that is read and written whole for every token."""
    return Formulas(parameters, state_size, flops_per_step, lambda layer, c: 2 * state_size(layer, c))


def _rival(parameters: Count, flops_per_step: Count) -> Formulas:
    """A rival, which knows the size of its own state."""
    return _rewritten(parameters, lambda layer, c: layer.state_size, flops_per_step)


def _bdlru_parameters(layer: BDLRU, c: int) -> int:
    """Gates N m (m + 1), with a column and a bias each if they follow the input; values and read-out 2 N m dim."""
    n, m, dim = layer.num_blocks, layer.block_size, layer.dim
    return n * m * (m + 1) * (dim + 1 if layer.selective else 1) + 2 * n * m * dim


def _bdlru_flops(layer: BDLRU, c: int) -> int:
    """Per block: m² products, m (m - 1) sums, m input products and m sums: 2m² + m."""
    m = layer.block_size
    return layer.num_blocks * (2 * m * m + m)


def _hlru_parameters(layer: HLRU, c: int) -> int:
    """Gates N (m + 1), with a column and a bias each if they follow the input; values N dim; the read-out."""
    n, m, dim = layer.num_channels, layer.order, layer.dim
    taps = {"window": m, "newest": 1}[layer.readout]
    return n * (m + 1) * (dim + 1 if layer.selective else 1) + n * dim * (1 + taps)


def _hlru_flops(layer: HLRU, c: int) -> int:
    """Per channel: m products, m - 1 sums, one input product and one sum: 2m + 1."""
    return layer.num_channels * (2 * layer.order + 1)


def _lstm_parameters(layer: LSTM, c: int) -> int:
    h = layer.hidden_size
    return 4 * h * (layer.dim + h + 2) + h * layer.dim


def _lstm_flops(layer: LSTM, c: int) -> int:
    """The recurrent product 4H (2H - 1), its sum with the input 4H, and 4H for the cell and the output."""
    h = layer.hidden_size
    return 8 * h * h + 4 * h


def _lru_parameters(layer: LRU, c: int) -> int:
    return layer.state_dim * (4 * layer.dim + 3) + layer.dim


def _mamba2_parameters(layer: Mamba2, c: int) -> int:
    inner, n, heads, dim = layer.inner_dim, layer.state_dim, layer.heads, layer.dim
    projections = dim * (3 * inner + 2 * n + heads)
    return projections + (inner + 2 * n) * (layer.conv_size + 1) + 3 * heads + inner


def _mamba2_flops(layer: Mamba2, c: int) -> int:
    """Per head: decay KV, outer product KV, sum KV, reading V (2K - 1)."""
    k, v = layer.state_dim, layer.head_dim
    return layer.heads * (5 * k * v - v)


def _delta_parameters(layer: DeltaLayer, c: int) -> int:
    keys, values, n = layer.heads * layer.head_dim, layer.heads * layer.value_dim, layer.factors
    mixed = keys + n * (keys + values)
    gated = layer.gated * (layer.dim * (layer.heads + values) + 2 * layer.heads)
    return (
        mixed * (layer.dim + layer.conv_size)
        + layer.dim * (n * layer.heads + values)
        + layer.value_dim
        + gated
    )


def _delta_flops(layer: DeltaLayer, c: int) -> int:
    """Per head: the gate KV; per factor reading V (2K - 1), difference V, β V, outer product KV, sum KV; reading."""
    k, v = layer.head_dim, layer.value_dim
    return layer.heads * (layer.gated * k * v + layer.factors * (4 * k * v + v) + 2 * k * v - v)


def _rwkv7_parameters(layer: RWKV7, c: int) -> int:
    return 4 * layer.dim**2 + 8 * layer.dim * layer.rank + 13 * layer.dim


def _rwkv7_flops(layer: RWKV7, c: int) -> int:
    """Per head: decay KK, two outer products 2KK, two sums 2KK, two readings 2K (2K - 1)."""
    k = layer.head_dim
    return layer.heads * (9 * k * k - 2 * k)


def _mlstm_parameters(layer: MLSTM, c: int) -> int:
    inner, dim, heads = layer.inner_dim, layer.dim, layer.heads
    small = 3 * inner * inner // layer.blocks + 2 * heads * (3 * inner + 1)
    return 3 * dim * inner + inner * (layer.conv_size + 1) + small + 2 * inner


def _mlstm_flops(layer: MLSTM, c: int) -> int:
    """Per head: memory 3dd, reading d (2d - 1), norm and its product 4d - 1, key and output 2d, stabiliser 3."""
    d = layer.head_dim
    return layer.heads * (5 * d * d + 5 * d + 2)


def _slstm_parameters(layer: SLSTM, c: int) -> int:
    block = layer.inner_dim * (layer.conv_size + 1 + 8 * layer.head_dim + 5)
    return block + layer.widened * 2 * layer.dim * layer.inner_dim


def _slstm_flops(layer: SLSTM, c: int) -> int:
    """Per unit: four recurrent products 4 (2d - 1) and their sums 4, stabiliser 3, cell 3, norm 2, output 2."""
    return layer.inner_dim * (8 * layer.head_dim + 10)


def _pdssm_parameters(layer: PDSSM, c: int) -> int:
    dim, n, k, w = layer.dim, layer.state_dim, layer.dictionary_size, layer.gate_dim
    return k * (dim + 1 + n * n) + 2 * (w * (dim + 1) + n * (w + 1)) + 4 * n * dim + dim


FORMULAS: dict[type[nn.Module], Formulas] = {
    BDLRU: _rewritten(_bdlru_parameters, lambda layer, c: layer.num_blocks * layer.block_size, _bdlru_flops),
    HLRU: _rewritten(_hlru_parameters, lambda layer, c: layer.num_channels * layer.order, _hlru_flops),
    LSTM: _rival(_lstm_parameters, _lstm_flops),
    # a complex product (6) and a complex sum (2)
    LRU: _rival(_lru_parameters, lambda layer, c: 8 * layer.state_dim),
    Mamba2: _rival(_mamba2_parameters, _mamba2_flops),
    DeltaLayer: _rival(_delta_parameters, _delta_flops),
    RWKV7: _rival(_rwkv7_parameters, _rwkv7_flops),
    MLSTM: _rival(_mlstm_parameters, _mlstm_flops),
    SLSTM: _rival(_slstm_parameters, _slstm_flops),
    # a complex product (6), moving numbers to where the one-hot columns say (2), a complex sum (2)
    PDSSM: _rival(_pdssm_parameters, lambda layer, c: 10 * layer.state_dim),
    # keys and values of c tokens are read, those of one are written
    Attention: Formulas(
        lambda layer, c: 4 * layer.dim * layer.inner_dim,
        lambda layer, c: 2 * layer.inner_dim * c,
        lambda layer, c: 4 * layer.inner_dim * c,
        lambda layer, c: 2 * layer.inner_dim * (c + 1),
    ),
}
"""What each class of mixer costs."""
