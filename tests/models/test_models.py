"""The two backbones: their sizes, first weights, carried states, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from statemix.models import MODELS, Autoencoder, LanguageModel, SwiGLU
from statemix.nn import BDLRU, HLRU

MIXERS = {
    "bdlru": lambda dim: BDLRU(dim, block_size=3, num_blocks=4),
    "hlru": lambda dim: HLRU(dim, order=3, num_channels=4),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("dim", "inner"), [(128, 352), (64, 176), (3, 16), (1, 16)])
def test_swiglu_width(dim, inner):
    mlp = SwiGLU(dim)
    assert mlp.gate.weight.shape == mlp.up.weight.shape == (inner, dim)
    assert count(mlp) == 3 * inner * dim
    x = torch.randn(2, dim)
    gate, up = x @ mlp.gate.weight.T, x @ mlp.up.weight.T
    torch.testing.assert_close(mlp(x), (gate * torch.sigmoid(gate) * up) @ mlp.down.weight.T)


@pytest.mark.parametrize("vocab", [16, 120])
def test_sizes_are_the_papers(vocab):
    """d = 128, two layers: 257 V + 271 616 + 2 P; the autoencoder with 1280 positions 257 V + 468 992 + 2 P."""
    mixer = lambda dim: BDLRU(dim, block_size=2, num_blocks=8)  # noqa: E731
    mixers = 2 * count(mixer(128))
    assert count(LanguageModel(vocab, 128, mixer)) == 257 * vocab + 271_616 + mixers
    assert count(Autoencoder(vocab, 128, mixer, max_length=1280)) == 257 * vocab + 468_992 + mixers


@pytest.mark.parametrize("name", MODELS)
def test_first_weights(name):
    torch.manual_seed(0)
    options = {"max_length": 32} if name == "autoencoder" else {}
    model = MODELS[name](50, 64, lambda dim: BDLRU(dim, block_size=4, gate_bias=-1.5), **options)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            assert 0.017 < module.weight.std() < 0.023
    layer = model.layers[0].mixer
    bias = layer.gates.bias.reshape(5, -1, 4)  # column, block, row
    assert (bias[-1] == -1.5).all()
    assert (bias[:-1] == 0).all()
    assert (model.head.bias == 0).all()


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("mixer", MIXERS)
def test_states_are_carried_and_steps_are_the_forward_pass(mixer, norm):
    torch.manual_seed(0)
    model = LanguageModel(7, 16, MIXERS[mixer], norm=norm).double()
    tokens = torch.randint(7, (2, 9))
    logits, states = model(tokens)
    assert logits.shape == (2, 9, 7)
    first, middle = model(tokens[:, :4])
    second, last = model(tokens[:, 4:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), logits)
    for a, b in zip(last, states, strict=True):
        torch.testing.assert_close(a, b)
    carried = model.initial_states(2)
    for t in range(9):
        one, carried = model.step(tokens[:, t], carried)
        torch.testing.assert_close(one, logits[:, t])


def test_the_language_model_does_not_look_ahead():
    model = LanguageModel(7, 16, MIXERS["bdlru"]).double()
    tokens = torch.randint(7, (1, 9))
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 1) % 7
    assert torch.equal(model(tokens)[0][:, :5], model(other)[0][:, :5])
    assert not torch.equal(model(tokens)[0][:, 5:], model(other)[0][:, 5:])


def test_only_the_last_encoding_reaches_the_decoder():
    """With a mixer that passes nothing on, every position's logits depend on the last token alone."""

    class Nothing(nn.Module):
        def forward(self, x, state=None):
            return torch.zeros_like(x), state

    model = Autoencoder(7, 16, lambda dim: Nothing(), max_length=8)
    tokens = torch.randint(7, (1, 8))
    other = tokens.clone()
    other[0, :-1] = (other[0, :-1] + 1) % 7
    assert torch.equal(model(tokens)[0], model(other)[0])
    logits, states = model(tokens[:, :5])
    assert logits.shape == (1, 5, 7)
    assert states is None


def test_compiles():
    model = LanguageModel(7, 16, MIXERS["bdlru"])
    torch._dynamo.reset()
    tokens = torch.randint(7, (2, 9))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens)[0], model(tokens)[0])


TOKENS = torch.zeros(2, 5, dtype=torch.int64)
CASES = {
    "vocab": (lambda: LanguageModel(0, 8, MIXERS["bdlru"]), ValueError, "vocab_size: got 0"),
    "dim": (lambda: LanguageModel(5, 8.0, MIXERS["bdlru"]), ValueError, "dim: got 8.0"),
    "depth": (lambda: LanguageModel(5, 8, MIXERS["bdlru"], depth=0), ValueError, "depth: got 0"),
    "norm": (
        lambda: LanguageModel(5, 8, MIXERS["bdlru"], norm="batch"),
        ValueError,
        "norm: got 'batch', expected",
    ),
    "mixer": (lambda: LanguageModel(5, 8, "bdlru"), TypeError, "mixer: got str, expected a function"),
    "max_length": (lambda: Autoencoder(5, 8, MIXERS["bdlru"], max_length=0), ValueError, "max_length: got 0"),
    "float tokens": (
        lambda: LanguageModel(5, 8, MIXERS["bdlru"])(TOKENS.float()),
        TypeError,
        "tokens: got torch.float",
    ),
    "rank": (lambda: LanguageModel(5, 8, MIXERS["bdlru"])(TOKENS[0]), ValueError, r"tokens: got shape \[5\]"),
    "states": (lambda: LanguageModel(5, 8, MIXERS["bdlru"])(TOKENS, []), ValueError, "states: got 0 of them"),
    "long": (
        lambda: Autoencoder(5, 8, MIXERS["bdlru"], max_length=4)(TOKENS),
        ValueError,
        "tokens: got T = 5",
    ),
    "step": (lambda: LanguageModel(5, 8, MIXERS["bdlru"]).step(TOKENS, []), ValueError, r"tokens: .* \[B\]"),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    function, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        function()
