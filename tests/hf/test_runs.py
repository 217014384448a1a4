"""Weights of plain models and of runs, there and back."""

from __future__ import annotations

import pytest
import torch

from statemix import HLRU
from statemix.hf import StatemixConfig, StatemixForCausalLM, from_language_model, from_run, to_language_model
from statemix.models import LanguageModel
from statemix.training import RunError, load_run, resolve_config, train
from statemix.training.checkpoint import save_weights
from statemix.training.files import write_json
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


LANGUAGE_RUN = {
    "name": "made",
    "mixer": {"name": "hlru", "order": 3},
    "block": {"conv_size": 3, "output_gate": True, "mlp_width": 48, "dropout": 0.1},
    "model": {
        "vocab_size": V,
        "dim": 32,
        "depth": 3,
        "norm": "rms",
        "tie_embeddings": False,
        "head_bias": False,
    },
    "data": {"length": 8},
}


def language_run(folder):
    """What training a language model leaves: its configuration and its weights."""
    torch.manual_seed(1)
    model = LanguageModel(
        V, 32, lambda dim: HLRU(dim, order=3), depth=3, norm="rms", head_bias=False,
        block=LANGUAGE_RUN["block"],
    )  # fmt: skip
    write_json(folder / "config.json", LANGUAGE_RUN)
    save_weights(folder / "model.safetensors", model, "0" * 64)
    return model.eval()


def test_a_run_of_a_language_model(tmp_path):
    plain = language_run(tmp_path)
    model = from_run(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(tokens(2, 7)).logits, plain(tokens(2, 7))[0])
    assert (model.config.conv_size, model.config.intermediate_size, model.config.dropout) == (3, 48, 0.1)


def test_a_damaged_run_of_a_language_model(tmp_path):
    language_run(tmp_path)
    write_json(tmp_path / "config.json", {**LANGUAGE_RUN, "mixer": {"name": "hlru", "order": 2}})
    with pytest.raises(RunError, match=r"model\.safetensors: .* expected"):
        from_run(tmp_path)
    write_json(tmp_path / "config.json", {**LANGUAGE_RUN, "mixer": {"name": "gru"}})
    with pytest.raises(RunError, match=r"describes no language model: mixer: got 'gru'"):
        from_run(tmp_path)
    write_json(tmp_path / "config.json", {"mixer": {"name": "hlru"}})
    with pytest.raises(RunError, match=r"describes no language model: it has no entry 'model'"):
        from_run(tmp_path)
    language_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-40])
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        from_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors does not exist"):
        from_run(tmp_path)


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
