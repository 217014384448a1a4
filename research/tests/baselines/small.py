"""Every baseline, small."""

from __future__ import annotations

import torch

from statemix.nn import build_mixer

SIZES = {
    "lstm": {"hidden_size": 6},
    "lru": {"state_dim": 5, "backend": "reference"},  # else kernels of its own are compiled for float64
    "mamba2": {"state_dim": 4, "head_dim": 8},
    "deltanet": {"heads": 2, "head_dim": 4},
    "gated_deltanet": {"heads": 2, "head_dim": 4, "expand_v": 2},
    "gated_deltaproduct": {"heads": 2, "head_dim": 4, "factors": 3},
    "rwkv7": {"head_dim": 4, "rank": 3},
    "mlstm": {"heads": 2, "chunk": 4},
    "slstm": {"heads": 2},
    "attention": {"heads": 2},
    "pdssm": {"state_dim": 6, "dictionary_size": 3, "gate_dim": 5},
}
DIM, B, T = 8, 3, 11
PACKED = [name for name in SIZES if name != "attention"]


def small(name, **more):
    """A float64 baseline whose gates follow the input, whatever they start with."""
    torch.manual_seed(0)
    layer = build_mixer(name, DIM, **SIZES[name] | more).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return layer


def inputs(*shape):
    """Random numbers that ask for gradients."""
    torch.manual_seed(1)
    return torch.randn(*(shape or (B, T, DIM)), dtype=torch.float64, requires_grad=True)
