"""Weights: saved and loaded, after torch.compile, from the meta device, tied, resized, spread, of another build."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM

import statemix.hf
from statemix.hf import StatemixCache, StatemixForCausalLM, StatemixModel
from tests.hf.small import MODELS, V, build, config, greedy, tokens


def same(one, other, text=None):
    text = tokens(2, 7) if text is None else text
    with torch.no_grad():
        assert torch.equal(one.eval()(text)[0], other.eval()(text)[0])


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    again, found = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is StatemixForCausalLM
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same(model, again)


@pytest.mark.parametrize("name", MODELS)
def test_the_stack_alone(name, tmp_path):
    """The stack reads the files of the whole model, and the whole model those of the stack."""
    model = build(name)
    model.save_pretrained(tmp_path / "whole")
    stack = AutoModel.from_pretrained(tmp_path / "whole")
    assert type(stack) is StatemixModel
    same(model.model, stack)
    stack.save_pretrained(tmp_path / "stack")
    again = StatemixForCausalLM.from_pretrained(tmp_path / "stack", head_bias=False)
    same(again.model, stack)


def test_files_in_parts(tmp_path):
    model = build("block")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    same(model, AutoModelForCausalLM.from_pretrained(tmp_path))


@pytest.mark.parametrize("whole", [True, False])
def test_after_torch_compile(whole, tmp_path):
    """A model compiled in place, and one that torch.compile wraps."""
    model = build()
    if whole:
        compiled = torch.compile(model, backend="aot_eager")
    else:
        compiled = model
        model.compile(backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(tokens(2, 7)).logits, build()(tokens(2, 7)).logits)
    compiled.save_pretrained(tmp_path)
    same(build(), AutoModelForCausalLM.from_pretrained(tmp_path))


@pytest.mark.parametrize("name", ["block", "hybrid"])
def test_compiled_whole(name):
    """No graph breaks, in a forward on new text and behind a cache."""
    model, text = build(name), tokens(2, 7)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(text, use_cache=False).logits, model(text).logits, rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["block", "hybrid"])
def test_compiled_with_a_cache(name):
    """A compiled forward goes on from a cache, and `generate` runs on it."""
    model, text = build(name), tokens(2, 7)
    model.forward = torch.compile(model.forward, backend="aot_eager")
    cache = StatemixCache(model.config)
    with torch.no_grad():
        model(text[:, :4], cache=cache)
        logits = [model(token, cache=cache).logits for token in text[:, 4:].split(1, dim=1)]
        whole = build(name)(text).logits[:, 4:]
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)
    new = model.generate(text, do_sample=False, max_new_tokens=4)
    assert torch.equal(new, greedy(build(name), text, 4))


@pytest.mark.parametrize("name", ["bdlru", "block"])
def test_exported(name, tmp_path):
    model, text = build(name), tokens(2, 7)
    program = torch.export.export(model, (text,), {"use_cache": False})
    torch.export.save(program, tmp_path / "model.pt2")
    with torch.no_grad():
        logits = torch.export.load(tmp_path / "model.pt2").module()(text, use_cache=False).logits
        torch.testing.assert_close(logits, model(text).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_from_the_meta_device(name, tmp_path):
    model = build(name)
    with torch.device("meta"):
        empty = StatemixForCausalLM(config(name))
    assert all(p.is_meta for p in empty.parameters())
    empty.load_state_dict(model.state_dict(), assign=True)
    if empty.model.rotary_emb is not None:  # a buffer that no file holds
        empty.model.rotary_emb = model.model.rotary_emb
    same(model, empty)


@pytest.mark.parametrize("name", MODELS)
def test_the_first_weights(name):
    """N(0, 0.2²), gates as the layers start them; the same numbers for the same seed."""
    model = build(name)
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            assert 0.15 < module.weight.std() < 0.25
        if isinstance(module, statemix.BDLRU):
            assert not module.gates.bias.any()
    for one, other in zip(model.parameters(), build(name).parameters(), strict=True):
        assert torch.equal(one, other)
    biased = build(mixer_arguments={"block_size": 4, "gate_bias": -2.0, "transition_bias": 1.0})
    assert set(biased.model.layers[0].block.mixer.gates.bias.tolist()) == {-2.0, 1.0}


def test_free_gates_and_scaled_weights():
    model = build(
        mixer_arguments={"block_size": 4, "selective": False}, scaled_init=True, hidden_size=256, vocab_size=9
    )
    block = model.model.layers[0].block
    assert block.mixer.free_gates.min() >= 0 and 0.9 < block.mixer.free_gates.max() < 1
    torch.testing.assert_close(block.mlp.down.weight.std(), torch.tensor(0.2 / 4**0.5), rtol=0.05, atol=0)
    torch.testing.assert_close(block.mlp.up.weight.std(), torch.tensor(0.2), rtol=0.05, atol=0)


def test_missing_weights_are_drawn_and_the_others_kept(tmp_path):
    """A checkpoint without one layer's gates: those start as a new layer's, everything else is what was saved."""
    model = build(mixer_arguments={"block_size": 4, "gate_bias": -2.0})
    with torch.no_grad():
        model.model.layers[1].block.mixer.gates.bias.fill_(7)
    lost = "model.layers.0.block.mixer.gates.bias"
    model.save_pretrained(
        tmp_path, state_dict={name: one for name, one in model.state_dict().items() if name != lost}
    )
    again, found = StatemixForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(found["missing_keys"]) == {lost}
    assert (again.model.layers[1].block.mixer.gates.bias == 7).all()
    assert set(again.model.layers[0].block.mixer.gates.bias.tolist()) == {0.0, -2.0}
    for name, value in model.state_dict().items():
        assert name == lost or torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize("name", ["bdlru", "hybrid"])
def test_tied_weights(name, tmp_path):
    model = build(name, tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    same(model, again)
    untied = build(name)
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [V + 10, V - 10])
def test_the_vocabulary_is_resized(tied, size):
    model, text = build(tie_word_embeddings=tied), tokens(2, 7) % 30
    with torch.no_grad():
        before = model(text).logits
        model.resize_token_embeddings(size)
        after = model(text, labels=text).logits
    assert model.config.vocab_size == model.vocab_size == size and after.shape[-1] == size
    common = min(size, V)
    torch.testing.assert_close(after[..., :common], before[..., :common])
    model.set_input_embeddings(torch.nn.Embedding(size, 32))
    assert model.get_input_embeddings() is model.model.embed_tokens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_other_numbers(name, dtype, tmp_path):
    """Weights in bfloat16 or float64, states in float32 or float64."""
    build(name).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert model.dtype == dtype
    output = model.generate(tokens(2, 5), max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    assert output.sequences.shape == (2, 8)
    cache = output.get("cache", output.get("past_key_values"))
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert {state.dtype for layer in cache.layers for state in getattr(layer, "states", ())} == {kept}
    with torch.no_grad():
        logits = model(tokens(2, 5)).logits.float()
        torch.testing.assert_close(logits, build(name)(tokens(2, 5)).logits, rtol=0.1, atol=0.5)


def test_a_checkpoint_of_another_configuration(tmp_path):
    build().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "mixer_arguments": {"block_size": 8}}))
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**content, "mixers": ["gru", "gru"]}))
    with pytest.raises(ValueError, match="mixer: got 'gru', expected one of"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
