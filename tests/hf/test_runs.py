"""Weights of plain models and of runs, there and back."""

from __future__ import annotations

import pytest
import torch

from statemix import HLRU
from statemix.hf import StatemixConfig, StatemixForCausalLM, from_language_model, from_run, to_language_model
from statemix.models import LanguageModel
from statemix.training import RunError, load_run, resolve_config, train
from tests.hf.small import RECURRENT, V, build, tokens


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_there_and_back(name, tied):
    model, text = build(name, tie_word_embeddings=tied), tokens(2, 7)
    plain = to_language_model(model)
    assert type(plain) is LanguageModel and not plain.training
    again = from_language_model(plain, model.config)
    with torch.no_grad():
        logits = plain(text)[0]
        torch.testing.assert_close(logits, model(text).logits, rtol=1e-5, atol=1e-6)
        assert torch.equal(again(text).logits, model(text).logits)
        _, states = plain(text)
        step = plain.step(text[:, 0], states)[0]
        torch.testing.assert_close(
            step, model(torch.cat([text, text[:, :1]], 1)).logits[:, -1], rtol=1e-4, atol=1e-5
        )
        plain.embedding.weight.zero_()
        assert model.model.embed_tokens.weight.any() and again.model.embed_tokens.weight.any()  # copies


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = ["training.steps=3", "training.eval_examples=8", "training.batch_size=4"]
    train(resolve_config("demo-bdlru", overrides=settings), folder)
    return folder


def test_a_run(run, tmp_path):
    model = from_run(run)
    plain = load_run(run)[1]
    text = torch.randint(model.config.vocab_size, (2, 9))
    with torch.no_grad():
        assert torch.equal(model(text).logits, plain(text)[0])
    model.save_pretrained(tmp_path)
    assert torch.equal(StatemixForCausalLM.from_pretrained(tmp_path)(text).logits, model(text).logits)
    assert model.config.mixers == ["bdlru"] * len(plain.layers) and not model.training


def test_no_run(tmp_path):
    with pytest.raises(RunError, match=r"config\.json does not exist"):
        from_run(tmp_path)


def test_a_run_of_another_model(tmp_path):
    settings = [
        "task.name=compression",
        "training.steps=1",
        "training.eval_examples=8",
        "training.batch_size=4",
    ]
    train(
        resolve_config("mad-bdlru", overrides=[*settings, "model.dim=16", "mixer.num_blocks=2"]),
        tmp_path / "run",
    )
    with pytest.raises(ValueError, match="holds a Autoencoder, expected a LanguageModel"):
        from_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_hidden_layers": 3},
            r"config: describes another model: model\.layers\.2\.\S+ is nothing in the weights",
        ),
        ({"hidden_size": 16}, "config: describes another model: .* expected"),
        ({"mixer": "bdlru", "mixer_arguments": {"block_size": 4}}, "config: describes another model: "),
        ({"norm": "layer"}, "config.norm: got 'layer', expected that of the model, RMSNorm"),
        ({"head_bias": True}, r"lm_head\.bias is nothing in the weights, expected \[50\]"),
    ],
)
def test_another_configuration(options, message):
    plain = LanguageModel(V, 32, lambda dim: HLRU(dim, order=3), depth=2, norm="rms", head_bias=False)
    settings = {
        "vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "mixer": "hlru", "mixer_arguments": {"order": 3}
    }  # fmt: skip
    assert from_language_model(plain, StatemixConfig(**settings)).training
    with pytest.raises(ValueError, match=message):
        from_language_model(plain, StatemixConfig(**{**settings, **options}))


def test_attention_has_no_plain_model():
    with pytest.raises(ValueError, match="model: layer 1 is attention, expected recurrent layers alone"):
        to_language_model(build("hybrid"))
