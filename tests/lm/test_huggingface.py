"""A Hugging Face model is evaluated and asked for text as the plain model of the same weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)

from statemix import BDLRU
from statemix.hf import StatemixConfig, StatemixForCausalLM, from_language_model
from statemix.lm.evaluation import evaluate
from statemix.lm.generation import Rates, Sampling, generate
from statemix.models import LanguageModel
from statemix.packs import Batches, ByteTokenizer


@pytest.fixture(scope="module")
def both():
    """A plain model and its twin."""
    torch.manual_seed(0)
    plain = LanguageModel(257, 16, lambda dim: BDLRU(dim, block_size=4), norm="rms", head_bias=False).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return plain, from_language_model(
        plain, StatemixConfig(vocab_size=257, hidden_size=16, num_hidden_layers=2)
    )


@pytest.mark.parametrize("cut", ["sequences", "documents"])
@pytest.mark.parametrize("carry_state", [False, True])
def test_equal_losses(both, held_out, cut, carry_state):
    options = {"cut": cut, "carry_state": carry_state, "length": 40, "max_tokens": 2000, "batch_size": 3}
    plain, twin = (evaluate(one, held_out, **options) for one in both)
    assert twin.loss == pytest.approx(plain.loss, rel=1e-5)
    assert twin.standard_error == pytest.approx(plain.standard_error, rel=1e-3)
    assert (twin.tokens, twin.units) == (plain.tokens, plain.units)


def test_equal_losses_of_packed_batches(both, held_out):
    batches = Batches(held_out, 2, 50, cu_seqlens=True)
    plain, twin = (evaluate(one, batches) for one in both)
    assert twin.loss == pytest.approx(plain.loss, rel=1e-5)


def test_attention_is_carried_on(held_out):
    torch.manual_seed(0)
    config = StatemixConfig(
        vocab_size=257, hidden_size=16, num_hidden_layers=2, head_dim=8, num_attention_heads=2,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip
    one = StatemixForCausalLM(config).eval()
    options = {"cut": "documents", "carry_state": True, "max_tokens": 800}
    whole, parts = (evaluate(one, held_out, length=length, **options) for length in (1 << 16, 16))
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


@pytest.mark.parametrize("prefill", [3, 100])
def test_equal_texts(both, prefill):
    plain, twin = (
        "".join(
            generate(one, ByteTokenizer(), "The state", max_tokens=30, sampling=Sampling(0), prefill=prefill)
        )
        for one in both
    )
    assert plain == twin and plain


def test_steps_are_replayed_and_given_back(both, monkeypatch):
    from statemix.hf import decoding
    from tests.hf.test_decoding import EagerStep

    _, twin = both
    options = {"max_tokens": 12, "sampling": Sampling(0), "prefill": 4}
    plain = "".join(generate(twin, ByteTokenizer(), "The state", **options))
    monkeypatch.setitem(decoding.STEPS, ("graph", "cpu"), EagerStep)
    monkeypatch.setattr(EagerStep, "calls", 0)
    rates, caches = Rates(), []
    attach = decoding.Decoding.attach
    monkeypatch.setattr(
        decoding.Decoding, "attach", lambda self, cache: (caches.append(cache), attach(self, cache))
    )
    assert "".join(generate(twin, ByteTokenizer(), "The state", rates=rates, **options)) == plain
    assert EagerStep.calls == rates.new_tokens - 1 > 3
    assert caches[0].replay is None and caches[0].get_seq_length() == 9 + rates.new_tokens - 1
