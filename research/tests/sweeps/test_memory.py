"""What is left of a state, against products of transition matrices written out."""

from __future__ import annotations

import pytest
import torch
from statemix_research.sweeps.probes import left_after, memory_summary, silent_gates

from statemix.analysis import companion
from statemix.models import MODELS
from statemix.nn import BDLRU, HLRU, build_mixer


def model_with(build, seed=0):
    torch.manual_seed(seed)
    return MODELS["language_model"](7, 12, build, depth=2)


LAYERS = {
    "bdlru": lambda dim: BDLRU(dim, block_size=3, num_blocks=4),
    "relu": lambda dim: BDLRU(dim, block_size=2, num_blocks=4, normalization="relu"),
    "free": lambda dim: BDLRU(dim, block_size=3, num_blocks=4, selective=False),
    "hlru": lambda dim: HLRU(dim, order=3, num_channels=5, normalization="tanh"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("lag", [1, 2, 5])
def test_against_the_product_written_out(name, lag):
    model, tokens = model_with(LAYERS[name]), torch.randint(7, (3, 5))
    inputs = []
    layers = [part for part in model.modules() if isinstance(part, (BDLRU, HLRU))]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    found = left_after(model, tokens, lag)
    assert len(found) == len(layers) == 2
    for layer, x, left in zip(layers, inputs, found, strict=True):
        if isinstance(layer, HLRU):
            matrices = companion(layer.coefficients(x)[..., :-1]).double()
        else:
            matrices = layer.transitions(x).double()
        product = torch.eye(matrices.shape[-1], dtype=torch.float64)
        for step in range(lag):
            product = matrices[:, step] @ product
        expected = product.abs().sum(-1).amax(-1)
        torch.testing.assert_close(left, expected, rtol=1e-5, atol=1e-12)


def test_softmax_remembers_m_of_m_plus_1_and_relu_forgets():
    """Fresh gates are near 0: softmax keeps about m / (m + 1) a step, relu loses whole blocks at once."""
    tokens = torch.randint(7, (4, 8))

    def summary(**options):
        model = model_with(lambda dim: BDLRU(dim, block_size=1, num_blocks=64, **options))
        return memory_summary(left_after(model, tokens, 8))

    softmax, relu = summary(), summary(normalization="relu")
    assert softmax["forgotten"] == 0
    assert softmax["left"] == pytest.approx(0.5**8, rel=0.1)
    assert relu["forgotten"] > 0.9
    assert summary(normalization="relu", transition_bias=1.0)["forgotten"] == 0


def test_silent_gates_are_those_that_no_token_opens():
    model = model_with(LAYERS["relu"])
    tokens = torch.arange(7)[None]
    assert silent_gates(model_with(LAYERS["bdlru"]), tokens) == 0
    layers = [part for part in model.modules() if isinstance(part, BDLRU)]
    for layer in layers:
        with torch.no_grad():
            layer.gates.weight.zero_()
            layer.gates.bias.fill_(1.0)
    assert silent_gates(model, tokens) == 0
    with torch.no_grad():
        layers[0].gates.bias[:6] = -1.0  # of 24 in each of two layers
    assert silent_gates(model, tokens) == 6 / 48


def test_models_without_our_layers():
    with pytest.raises(ValueError, match="model: it has no BDLRU and no HLRU"):
        silent_gates(model_with(lambda dim: build_mixer("lstm", dim)), torch.zeros(2, 5, dtype=torch.long))


def test_bad_lags():
    for lag in (0, 6):
        with pytest.raises(ValueError, match=rf"lag: got {lag}, expected 1 to 5"):
            left_after(model_with(LAYERS["bdlru"]), torch.zeros(2, 5, dtype=torch.long), lag)
