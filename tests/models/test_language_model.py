"""The language model's options: hybrids, packed rows, tied embeddings, blocks, first weights, the hidden states."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from statemix.models import Autoencoder, LanguageModel
from statemix.nn import BDLRU, HLRU, Block, Stack, SwiGLU, map_state

MIXERS = {
    "bdlru": lambda dim: BDLRU(dim, block_size=3, num_blocks=4),
    "hlru": lambda dim: HLRU(dim, order=3, num_channels=4),
}
HYBRID = [MIXERS["bdlru"], MIXERS["hlru"], MIXERS["bdlru"]]
FIRSTS = [0.030911169946193695, 0.02515367977321148, -0.03182679042220116, 0.0022171218879520893]
"""The first number of four parameters, as a seed drew them when the layers were no blocks."""

PARTS = {"conv_size": 3, "output_gate": True}


def build(vocab=7, dim=8, mixer=HYBRID, **options):
    torch.manual_seed(0)
    return LanguageModel(vocab, dim, mixer, **options).double()


def test_the_model_is_its_parts():
    model = build(norm="rms")
    tokens = torch.randint(7, (2, 5))
    x = model.embedding.weight[tokens]
    for layer in model.layers:
        y = x + layer.mixer(layer.mixer_norm(x))[0]
        x = y + layer.mlp(layer.mlp_norm(y))
    hidden = model.norm(x)
    torch.testing.assert_close(model.hidden(tokens)[0], hidden)
    torch.testing.assert_close(model(tokens)[0], hidden @ model.head.weight.T + model.head.bias)


def test_names_and_first_weights_are_those_of_earlier_versions():
    """Weights that were saved load, and a seed draws the same ones."""
    torch.manual_seed(3)
    model = LanguageModel(17, 32, lambda dim: BDLRU(dim, block_size=3, gate_bias=-1.0))
    layer = (
        "mixer_norm.weight", "mixer_norm.bias", "mixer.gates.weight", "mixer.gates.bias", "mixer.values.weight",
        "mixer.readout_projection.weight", "mlp_norm.weight", "mlp_norm.bias", "mlp.gate.weight", "mlp.up.weight",
        "mlp.down.weight",
    )  # fmt: skip
    layers = [f"layers.{n}.{name}" for n in range(2) for name in layer]
    assert list(model.state_dict()) == [
        "embedding.weight", *layers, "norm.weight", "norm.bias", "head.weight", "head.bias",
    ]  # fmt: skip
    firsts = [
        model.get_parameter(name).flatten()[0].item()
        for name in (
            "embedding.weight",
            "layers.1.mixer.gates.weight",
            "layers.1.mlp.down.weight",
            "head.weight",
        )
    ]
    assert firsts == pytest.approx(FIRSTS, rel=1e-6)


def test_a_mixer_for_each_layer():
    model = build()
    assert [type(layer.mixer) for layer in model.layers] == [BDLRU, HLRU, BDLRU]
    assert isinstance(model.layers, Stack) and all(isinstance(layer, Block) for layer in model.layers)
    assert len(build(mixer=HYBRID, depth=3).layers) == 3
    assert len(build(mixer=MIXERS["hlru"]).layers) == 2
    assert len(Autoencoder(7, 8, HYBRID, max_length=4).layers) == 3


@pytest.mark.parametrize("block", [{}, PARTS, {"mlp": False}, {"mlp_width": 24, "dropout": 0.5}], ids=str)
def test_options_reach_every_block(block):
    model = build(block=block)
    for layer in model.layers:
        assert (layer.mlp is None) == (block.get("mlp") is False)
        assert (layer.convolution is None) == ("conv_size" not in block)
        assert (layer.output_gate is None) == ("output_gate" not in block)
        assert layer.dropout == block.get("dropout", 0.0)
        assert layer.mlp is None or layer.mlp.up.out_features == block.get("mlp_width", 32)
    assert model.training
    logits, _ = model.eval()(torch.randint(7, (2, 5)))
    assert logits.isfinite().all()
    assert model(torch.zeros(1, 0, dtype=torch.int64))[0].shape == (1, 0, 7)


@pytest.mark.parametrize("block", [{}, PARTS], ids=["plain", "parts"])
def test_states_are_carried_and_steps_are_the_forward_pass(block):
    model = build(block=block)
    tokens = torch.randint(7, (2, 9))
    logits, states = model(tokens)
    first, middle = model(tokens[:, :4])
    second, last = model(tokens[:, 4:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), logits)
    torch.testing.assert_close(last, states)
    for carried in (model.initial_states(2), None):
        for t in range(9):
            one, carried = model.step(tokens[:, t], carried)
            torch.testing.assert_close(one, logits[:, t])


@pytest.mark.parametrize("lengths", [[3, 0, 1, 5], [4], [0]], ids=str)
@pytest.mark.parametrize("block", [{}, PARTS], ids=["plain", "parts"])
def test_packed_rows(block, lengths):
    model = build(block=block)
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    tokens = torch.randint(7, (1, bounds[-1]))
    states = map_state(torch.randn_like, model.initial_states(len(lengths)))
    for carried in (None, states):
        logits, after = model(tokens, carried, torch.tensor(bounds))
        for s, (begin, end) in enumerate(pairwise(bounds)):
            own = None if carried is None else map_state(lambda part, s=s: part[s : s + 1], carried)
            part, last = model(tokens[:, begin:end], own)
            torch.testing.assert_close(logits[:, begin:end], part)
            torch.testing.assert_close(map_state(lambda one, s=s: one[s : s + 1], after), last)


def test_a_loss_in_chunks_from_the_hidden_states():
    model = build(tie_embeddings=True, head_bias=False)
    tokens, targets = torch.randint(7, (2, 6)), torch.randint(7, (2, 6))
    F.cross_entropy(model(tokens)[0].flatten(0, 1), targets.flatten()).backward()
    want = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    hidden, _ = model.hidden(tokens)
    for x, target in zip(hidden.flatten(0, 1).chunk(3), targets.flatten().chunk(3), strict=True):
        (F.cross_entropy(model.head(x), target, reduction="sum") / 12).backward(retain_graph=True)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, want[name])


def test_tied_embeddings():
    model = build(tie_embeddings=True, head_bias=False)
    assert model.head.weight is model.embedding.weight
    assert model.head.bias is None
    assert [name for name, _ in model.named_parameters() if name.startswith("head")] == []
    untied = build()
    assert untied.head.weight is not untied.embedding.weight
    assert untied.head.bias.shape == (7,)
    model.reset_parameters()
    assert model.head.weight is model.embedding.weight
    assert 0.01 < model.head.weight.std() < 0.03


@pytest.mark.parametrize("depth", [2, 8])
def test_scaled_first_weights(depth):
    """The SwiGLUs' output alone, divided by the root of 2 · depth; everything else as without."""
    plain, scaled = (
        build(dim=32, mixer=MIXERS["bdlru"], depth=depth, scaled_init=on) for on in (False, True)
    )
    for (name, a), b in zip(plain.named_parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a / math.sqrt(2 * depth) if name.endswith("mlp.down.weight") else a, b)
    torch.manual_seed(5)
    scaled.reset_parameters()
    for layer in scaled.layers:
        assert layer.mlp.down.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * depth), rel=0.1)
        assert layer.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_first_weights_of_every_part():
    model = build(dim=32, block=PARTS, norm="rms")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
    for layer in model.layers:
        assert layer.convolution.weight.abs().max() <= 3**-0.5
        assert isinstance(layer.mlp, SwiGLU)


@pytest.mark.slow
def test_compiles_with_packed_rows_and_states():
    model = build(block=PARTS).float()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    tokens, bounds = torch.randint(7, (1, 9)), torch.tensor([0, 4, 9])
    states = map_state(torch.randn_like, model.initial_states(2))
    for carried in (None, states):
        torch.testing.assert_close(compiled(tokens, carried, bounds), model(tokens, carried, bounds))


TOKENS = torch.zeros(2, 5, dtype=torch.int64)
CASES = {
    "no mixers": (lambda: build(mixer=[]), ValueError, "mixer: got 0 functions"),
    "two mixers": (lambda: build(mixer=HYBRID[:2], depth=3), ValueError, "mixer: got 2 functions, .* depth = 3 layers"),
    "a module": (lambda: build(mixer=[3]), TypeError, "mixer: got list, expected a function dim -> module, or one"),
    "option": (lambda: build(block={"conv": 3}), ValueError, "block.conv: unknown, expected one of conv_size, output"),
    "norm": (lambda: build(block={"norm": "rms"}), ValueError, "block.norm: unknown"),
    "block": (lambda: build(block=["mlp"]), TypeError, "block: got list, expected a mapping"),
    "value": (lambda: build(block={"conv_size": 1}), ValueError, "conv_size: got 1, expected at least 2"),
    "bounds": (lambda: build()(TOKENS, None, torch.tensor([0, 5])), ValueError, "cu_seqlens: got a batch of B = 2"),
    "states": (lambda: build()(TOKENS, [None]), ValueError, "states: got 1 of them, expected a list of 3"),
    "masked": (
        lambda: build()(TOKENS, [None], mask=TOKENS == 0),
        ValueError,
        "states: got 1 of them, expected a list of 3",
    ),
    "a tensor": (lambda: build().step(TOKENS[0], TOKENS), ValueError, "states: got Tensor, expected a list of 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    function, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        function()
