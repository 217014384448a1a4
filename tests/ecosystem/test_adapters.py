"""Adapters of PEFT on the linears of a layer and of a model."""

from __future__ import annotations

import copy

import pytest
import torch

from statemix import BDLRU, HLRU
from statemix.models import LanguageModel
from tests.ecosystem.layers import (
    LAYERS,
    build,
    by_steps,
    check,
    check_changed,
    check_copies,
    inputs,
    linears,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::DeprecationWarning:torchao")


def peft():
    """The package, imported (with transformers) where a test runs, not where tests are collected."""
    return pytest.importorskip("peft", reason="needs peft (extra dev)")


ADAPTERS = {
    "lora": lambda **k: peft().LoraConfig(r=2, init_lora_weights=False, **k),
    "rslora": lambda **k: peft().LoraConfig(r=2, init_lora_weights=False, use_rslora=True, **k),
    "dora": lambda **k: peft().LoraConfig(r=2, init_lora_weights=False, use_dora=True, **k),
    "loha": lambda **k: peft().LoHaConfig(r=2, init_weights=False, **k),
    "ia3": lambda **k: peft().IA3Config(feedforward_modules=["values"], init_ia3_weights=False, **k),
    "oft": lambda **k: peft().OFTConfig(r=0, oft_block_size=2, init_weights=False, **k),
}
"""What PEFT puts on a linear layer, with first weights that change its numbers."""


def adapted(layer, adapter="lora", targets=None):
    config = ADAPTERS[adapter](target_modules=targets or linears(layer))
    return peft().inject_adapter_in_model(config, copy.deepcopy(layer))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_reach_every_linear(kind, adapter):
    plain = build(kind)
    layer = adapted(plain, adapter)
    check_changed(layer, plain)
    check(layer)
    check_copies(layer)


@pytest.mark.parametrize("target", ["gates", "values", "readout_projection"])
def test_one_linear_alone(target):
    plain = build("hlru-window")
    layer = adapted(plain, targets=[target])
    check_changed(layer, plain)
    check(layer)


def merge(layer, how):
    for module in layer.modules():
        if isinstance(module, peft().tuners.tuners_utils.BaseTunerLayer):
            getattr(module, how)()


@pytest.mark.parametrize("adapter", ["lora", "dora"])
@pytest.mark.parametrize("kind", LAYERS)
def test_merged_and_unmerged(kind, adapter):
    layer = adapted(build(kind), adapter).eval()
    x, state = inputs(layer)
    want = layer(x, state)
    for how in ("merge", "unmerge"):
        merge(layer, how)
        torch.testing.assert_close(layer(x, state), want)
        torch.testing.assert_close(by_steps(layer, x, state), want)


def test_switched_off():
    plain = build("bdlru")
    layer = adapted(plain)
    for module in layer.modules():
        if isinstance(module, peft().tuners.tuners_utils.BaseTunerLayer):
            module.enable_adapters(False)
    x, state = inputs(layer)
    torch.testing.assert_close(layer(x, state), plain(x, state))


def test_dropout_is_drawn_in_training_alone():
    config = peft().LoraConfig(r=2, init_lora_weights=False, lora_dropout=0.5, target_modules=["values"])
    layer = peft().inject_adapter_in_model(config, build("bdlru"))
    x, state = inputs(layer)
    assert not torch.equal(layer(x, state)[0], layer(x, state)[0])
    check(layer.eval())


def test_half_precision_and_autocast():
    layer = adapted(build("bdlru", dtype=torch.bfloat16))
    check(layer, dtype=torch.bfloat16, trained=False, rtol=0.05, atol=0.05)
    layer = adapted(build("bdlru", dtype=torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check(layer, dtype=torch.float32, trained=False, rtol=0.05, atol=0.05)
        assert layer(inputs(layer, dtype=torch.float32)[0])[0].dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore")  # of the compiler about what PEFT does
def test_compiled():
    layer = adapted(build("bdlru"))
    x, state = inputs(layer)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager")
    torch.testing.assert_close(compiled(x, state), layer(x, state))


def model(mixer, tied=False):
    torch.manual_seed(0)
    model = LanguageModel(11, 8, mixer, depth=2).double()
    if tied:
        model.head.weight = model.embedding.weight
    return model


MODELS = {
    "bdlru": lambda: model(lambda dim: BDLRU(dim, block_size=2, num_blocks=6)),
    "hlru": lambda: model(lambda dim: HLRU(dim, order=2, num_channels=6)),
    "tied": lambda: model(lambda dim: BDLRU(dim, block_size=2, num_blocks=6), tied=True),
}


@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings:UserWarning", "ignore:.*tied:UserWarning")
@pytest.mark.parametrize("targets", ["all-linear", ["gates", "values", "embedding", "head"]], ids=str)
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_with_adapters(kind, targets):
    """Forward pass and steps agree, every adapter is trained, and the merged model gives the same numbers."""
    plain = MODELS[kind]()
    tokens = torch.randint(11, (2, 6))
    want = plain(tokens)[0]
    config = peft().LoraConfig(r=2, init_lora_weights=False, target_modules=targets)
    wrapped = peft().get_peft_model(plain, config)
    logits, _ = wrapped(tokens)
    assert (logits - want).abs().max() > 1e-3
    inner = wrapped.get_base_model()
    states, outputs = inner.initial_states(2), []
    for t in range(6):
        y, states = inner.step(tokens[:, t], states)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), logits)
    logits.sin().sum().backward()
    trained = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    if kind != "tied":  # merged into one of two uses of a weight, an adapter reaches the other as well
        torch.testing.assert_close(wrapped.merge_and_unload()(tokens)[0], logits)
