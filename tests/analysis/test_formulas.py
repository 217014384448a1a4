"""Formulas of every mixer against counted numbers: parameters, carried state, arithmetic done for one token."""

from __future__ import annotations

import pytest
import torch
from statemix_research.baselines import recurrences
from statemix_research.baselines.attention import attend
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from statemix.analysis.accounting import (
    bytes_per_token,
    flops_per_step,
    formulas_of,
    mixer_parameters,
    parameters,
    state_size,
)
from statemix.models import LanguageModel
from statemix.nn import MIXERS, build_mixer

OURS = {"bdlru": {"block_size": 3}, "hlru": {"order": 3}}
VARIANTS = [
    *((name, OURS.get(name, {})) for name in MIXERS),
    ("bdlru", {"block_size": 2, "selective": False}),
    ("hlru", {"order": 4, "readout": "newest"}),
    ("hlru", {"order": 2, "selective": False}),
    ("lstm", {"hidden_size": 9}),
    ("lru", {"state_dim": 5}),
    ("mamba2", {"state_dim": 8, "expand": 3, "head_dim": 16, "conv_size": 2}),
    ("deltanet", {"heads": 2, "head_dim": 8, "expand_v": 2}),
    ("gated_deltanet", {"heads": 2, "head_dim": 8, "expand_v": 2, "conv_size": 3}),
    ("gated_deltaproduct", {"heads": 2, "head_dim": 8, "factors": 4}),
    ("rwkv7", {"head_dim": 16, "rank": 5}),
    ("mlstm", {"heads": 2, "expand": 3, "conv_size": 2}),
    ("slstm", {"heads": 2, "conv_size": 2}),
    ("slstm", {"heads": 3, "head_dim": 10}),
    ("attention", {"heads": 2, "position": "none"}),
    ("attention", {"heads": 3, "head_dim": 10}),
    ("pdssm", {"state_dim": 6, "dictionary_size": 3, "gate_dim": 5}),
]


@pytest.mark.parametrize(("name", "arguments"), VARIANTS)
def test_parameters_and_state_are_those_of_the_layer(name, arguments):
    layer = build_mixer(name, 64, **arguments)
    assert formulas_of(layer).parameters(layer, 1) == parameters(layer)
    _, state = layer(torch.randn(2, 9, 64))
    assert state_size(layer, 9) == state[0].numel()
    hollow = build_mixer(name, 64, **arguments, device="meta")
    costs = (state_size, flops_per_step, bytes_per_token, mixer_parameters)
    assert [count(hollow) for count in costs] == [count(layer) for count in costs]


class Tally(TorchDispatchMode):
    """Multiplications, additions and divisions as they are done, those of a dot product of K being 2K - 1."""

    ELEMENTWISE = ("add", "sub", "mul", "div")

    def __init__(self):
        super().__init__()
        self.done = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.__name__.partition(".")[0]
        if name in self.ELEMENTWISE:
            self.done += out.numel()
        elif name in ("mm", "bmm"):
            self.done += out.numel() * (2 * args[0].shape[-1] - 1)
        elif name == "sum":
            self.done += args[0].numel() - out.numel()
        return out


def ones(*shape):
    return torch.full((1, *shape), 0.5)


def delta(layer):
    h, k, v, n = layer.heads, layer.head_dim, layer.value_dim, layer.factors
    gate = {"g": ones(1, h)} if layer.gated else {}
    return recurrences.delta_rule, {
        "q": ones(1, h, k), "k": ones(n, h, k), "v": ones(n, h, v), "beta": ones(n, h), **gate,
        "initial_state": ones(h, k, v),
    }  # fmt: skip


def mamba2(layer):
    h, k, v = layer.heads, layer.state_dim, layer.head_dim
    keys = {"q": ones(1, h, k), "k": ones(1, h, k)}
    return recurrences.simple_gla, {**keys, "v": ones(1, h, v), "g": ones(1, h), "initial_state": ones(h, k, v)}


def rwkv7(layer):
    h, k = layer.heads, layer.head_dim
    return recurrences.rwkv7, {**{name: ones(1, h, k) for name in "rwkvab"}, "initial_state": ones(h, k, k)}


def mlstm(layer):
    h, d = layer.heads, layer.head_dim
    given = {name: ones(1, h, d) for name in "qkv"} | {name: ones(1, h) for name in "if"}
    return recurrences.mlstm, {**given, "initial_state": (ones(h, d, d), ones(h, d), ones(h))}


def slstm(layer):
    h, d = layer.heads, layer.head_dim
    given = {"gates": ones(1, 4, h, d), "recurrent": torch.ones(4, h, d, d)}
    return recurrences.slstm, {**given, "initial_state": (ones(h, d),) * 4}


def lru(layer):
    n = layer.state_dim
    given = {"eigenvalues": torch.ones(n, 2), "inputs": ones(1, n, 2)}
    return recurrences.complex_diagonal, {**given, "initial_state": ones(n, 2)}


def lstm(layer):
    h = layer.hidden_size
    return recurrences.lstm, {
        "gates": ones(1, 4 * h),
        "recurrent": torch.ones(4 * h, h),
        "initial_state": ones(2, h),
    }


def sparse_step(real, imaginary, place, h, b):
    """One step of PD-SSM that moves numbers instead of multiplying by a one-hot matrix."""
    x, y = h.unbind(-1)
    turned = torch.stack([real * x - imaginary * y, imaginary * x + real * y], -1)
    moved = torch.zeros_like(h)
    for column, row in enumerate(place):
        moved[row] = moved[row] + turned[column]
    return moved + b


def pdssm(layer):
    n = layer.state_dim
    numbers = {"real": torch.ones(n), "imaginary": torch.ones(n), "place": [0] * n}
    return sparse_step, {**numbers, "h": torch.ones(n, 2), "b": torch.ones(n, 2)}


STEPS = {
    "deltanet": delta, "gated_deltanet": delta, "gated_deltaproduct": delta, "mamba2": mamba2, "rwkv7": rwkv7,
    "mlstm": mlstm, "slstm": slstm, "lru": lru, "lstm": lstm, "pdssm": pdssm,
}  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), [v for v in VARIANTS if v[0] in STEPS])
def test_arithmetic_is_what_a_step_does(name, arguments):
    layer = build_mixer(name, 64, **arguments, device="meta")
    step, given = STEPS[name](layer)
    with Tally() as tally:
        step(**given)
    assert flops_per_step(layer) == tally.done


@pytest.mark.parametrize("context", [1, 17])
def test_attention_by_torch_s_own_count(context):
    layer = build_mixer("attention", 48, heads=2, head_dim=32)
    q, k = torch.ones(1, 2, 1, 32), torch.ones(1, 2, context, 32)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        attend(q, k, k)
    assert flops_per_step(layer, context) == counter.get_total_flops()


def test_bytes_per_token():
    block = build_mixer("bdlru", 64, block_size=4, num_blocks=3)
    assert bytes_per_token(block) == 2 * 4 * 12
    assert bytes_per_token(block, torch.bfloat16) == 2 * 2 * 12
    attention = build_mixer("attention", 64)
    assert bytes_per_token(attention, torch.bfloat16, 10) == 2 * (10 + 1) * 2 * 64  # ten read, one written
    model = LanguageModel(5, 64, lambda dim: build_mixer("lstm", dim), depth=3)
    assert bytes_per_token(model) == 3 * 2 * 4 * 2 * 64


def test_what_is_no_mixer():
    with pytest.raises(TypeError, match="mixer: got Linear, expected one of BDLRU, HLRU, LSTM"):
        formulas_of(torch.nn.Linear(2, 2))
