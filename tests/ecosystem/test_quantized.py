"""Quantised linears: torch.ao (dynamic, and fake quantisation in training) and torchao."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.ao import quantization

from statemix import BDLRU
from statemix.models import LanguageModel
from tests.ecosystem.layers import LAYERS, build, by_steps, check, check_changed, check_copies, inputs

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Please use quant_min:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*reduce_range:UserWarning"),
]
COARSE = {"rtol": 0.1, "atol": 0.05}
"""Dynamic quantisation rounds each call's inputs by their own range: a step rounds otherwise than a sequence."""


def dynamic(layer, dtype=torch.qint8):
    return quantization.quantize_dynamic(layer.eval(), {nn.Linear}, dtype=dtype)


def torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchao.quantization", reason="needs torchao (extra dev)")


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_dynamic_quantisation(kind, dtype):
    plain = build(kind, dtype=torch.float32)
    layer = dynamic(plain, dtype)
    assert isinstance(layer.values, nn.quantized.dynamic.Linear)
    x, state = inputs(layer, dtype=torch.float32)
    assert layer.initial_state(2).dtype == torch.float32
    for have in (layer(x, state), layer(x), by_steps(layer, x, state)):
        assert have[0].dtype == have[1].dtype == torch.float32
    check_changed(layer, plain, dtype=torch.float32, least=1e-6)
    check(layer, dtype=torch.float32, trained=False, **COARSE)
    torch.testing.assert_close(layer(x, state), plain(x, state), **COARSE)
    check_copies(layer, dtype=torch.float32, pickled=False)


TORCHAO = {
    "int8 weights": lambda ao: ao.Int8WeightOnlyConfig(),
    "int8": lambda ao: ao.Int8DynamicActivationInt8WeightConfig(),
}


@pytest.mark.filterwarnings("ignore")  # of torchao about itself
@pytest.mark.parametrize("config", TORCHAO)
@pytest.mark.parametrize("kind", LAYERS)
def test_torchao(kind, config):
    ao = torchao()
    plain = build(kind, dtype=torch.float32).eval()
    layer = copy.deepcopy(plain)
    ao.quantize_(layer, TORCHAO[config](ao))
    assert type(layer.values.weight.data) is not torch.Tensor or type(layer.values.weight) is not nn.Parameter
    x, state = inputs(layer, dtype=torch.float32)
    with torch.no_grad():
        assert layer.initial_state(2).dtype == torch.float32
        check_changed(layer, plain, dtype=torch.float32, least=1e-6)
        check(layer, dtype=torch.float32, trained=False, **COARSE)
        torch.testing.assert_close(layer(x, state), plain(x, state), **COARSE)
    check_copies(layer, dtype=torch.float32, pickled=False)  # torchao's linears cannot be pickled


@pytest.mark.filterwarnings("ignore")  # of torchao about itself
def test_torchao_in_half_precision_and_in_a_model():
    ao = torchao()
    torch.manual_seed(0)
    model = LanguageModel(11, 32, lambda dim: BDLRU(dim, block_size=4)).bfloat16().eval()
    tokens = torch.randint(11, (2, 6))
    with torch.no_grad():
        want, _ = model(tokens)
        ao.quantize_(model, ao.Int8WeightOnlyConfig())
        logits, _ = model(tokens)
        states, outputs = model.initial_states(2), []
        for t in range(6):
            y, states = model.step(tokens[:, t], states)
            outputs.append(y)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits, want, rtol=0.1, atol=0.1)
    torch.testing.assert_close(torch.stack(outputs, 1), logits, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", LAYERS)
def test_fake_quantisation_in_training(kind):
    """Quantisation-aware training: linears of a class of their own, which round their weights in the forward pass."""
    plain = build(kind, dtype=torch.float32).train()
    layer = copy.deepcopy(plain)
    layer.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    layer = quantization.prepare_qat(layer)
    assert type(layer.values) is not nn.Linear
    x, state = inputs(layer, dtype=torch.float32)
    layer(x, state)[0].sum().backward()
    assert all(p.grad is not None for name, p in layer.named_parameters() if name != "initial")
    for module in layer.modules():
        if isinstance(module, quantization.FakeQuantizeBase):
            module.disable_observer()
    check_changed(layer, plain, dtype=torch.float32, least=1e-6)
    check(layer, dtype=torch.float32)
