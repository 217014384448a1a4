"""Importing block-major weights: the layer then computes what a block-major layer computes."""

from __future__ import annotations

import pytest
import torch

from statemix.nn import BDLRU, HLRU, load_block_major
from tests.ops.cases import relative
from tests.ops.loops import loop

D, N, M, B, T = 5, 4, 3, 2, 6


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def block_major(gate_width, value_width, taps):
    return {
        "gate_weight": normal(N * gate_width, D),
        "gate_bias": normal(N * gate_width),
        "value_weight": normal(N * value_width, D),
        "output_weight": normal(D, N * taps),
    }


def test_bdlru():
    torch.manual_seed(0)
    weights, x = block_major(M * (M + 1), M, M), normal(B, T, D)
    layer = BDLRU(D, block_size=M, num_blocks=N).double()
    load_block_major(layer, **weights)
    gates = (x @ weights["gate_weight"].T + weights["gate_bias"]).reshape(B, T, N, M, M + 1)
    values = (x @ weights["value_weight"].T).reshape(B, T, N, M)
    states, _ = loop("bdlru", gates, values, torch.zeros(B, N, M))
    assert relative(layer(x)[0], states.flatten(-2) @ weights["output_weight"].T) < 1e-12


@pytest.mark.parametrize(("readout", "taps"), [("window", M), ("newest", 1)])
def test_hlru(readout, taps):
    torch.manual_seed(0)
    weights, x = block_major(M + 1, 1, taps), normal(B, T, D)
    layer = HLRU(D, order=M, num_channels=N, readout=readout).double()
    load_block_major(layer, **weights)
    gates = (x @ weights["gate_weight"].T + weights["gate_bias"]).reshape(B, T, N, M + 1)
    states, _ = loop("hlru", gates, x @ weights["value_weight"].T, torch.zeros(B, N, M))
    padded = torch.cat([torch.zeros(B, M, N, dtype=torch.float64), states], dim=1)
    window = torch.stack([padded[:, M - k : M - k + T] for k in range(taps)], dim=-1)  # [B, T, N, lag]
    assert relative(layer(x)[0], window.flatten(-2) @ weights["output_weight"].T) < 1e-12


@pytest.mark.parametrize("channels", [1, 4])
def test_not_selective(channels):
    torch.manual_seed(0)
    x, gates = normal(B, T, D), torch.rand(channels, M + 1, dtype=torch.float64)
    layer = HLRU(D, order=M, num_channels=channels, readout="newest", selective=False).double()
    value, output = normal(channels, D), normal(D, channels)
    load_block_major(layer, gate_weight=gates, value_weight=value, output_weight=output)
    states, _ = loop("hlru", gates.expand(B, T, -1, -1), x @ value.T, torch.zeros(B, channels, M))
    assert relative(layer(x)[0], states @ output.T) < 1e-12
    gates = torch.rand(channels, M, M + 1, dtype=torch.float64)
    block = BDLRU(D, block_size=M, num_blocks=channels, selective=False).double()
    value, output = normal(channels * M, D), normal(D, channels * M)
    load_block_major(block, gate_weight=gates, value_weight=value, output_weight=output)
    values = (x @ value.T).reshape(B, T, channels, M)
    states, _ = loop("bdlru", gates.expand(B, T, -1, -1, -1), values, torch.zeros(B, channels, M))
    assert relative(block(x)[0], states.flatten(-2) @ output.T) < 1e-12


def test_errors_leave_the_layer_as_it_was():
    layer = BDLRU(D, block_size=M, num_blocks=N).double()
    good = block_major(M * (M + 1), M, M)
    before = {name: p.clone() for name, p in layer.named_parameters()}
    for name, bad, kind, message in (
        ("gate_weight", normal(3, D), ValueError, r"gate_weight: got shape \[3, 5\], expected \[48, 5\]"),
        ("gate_bias", None, ValueError, "gate_bias: got None"),
        ("value_weight", [1.0], TypeError, "value_weight: got list"),
        ("output_weight", normal(N * M, D), ValueError, "output_weight: got shape"),
    ):
        with pytest.raises(kind, match=message):
            load_block_major(layer, **{**good, name: bad})
    free = BDLRU(D, block_size=M, num_blocks=N, selective=False)
    with pytest.raises(ValueError, match="gate_bias: got a tensor, expected None"):
        load_block_major(free, **good)
    assert all(torch.equal(p, before[name]) for name, p in layer.named_parameters())
