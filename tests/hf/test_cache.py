"""Caches: constant size, a forward of several tokens, copies and roll-backs, batches that change."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

from statemix.hf import StatemixCache
from tests.hf.small import MODELS, RECURRENT, build, config, tokens


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parts", [[12], [5, 7], [1, 1, 4, 6], [11, 1], [0, 12]])
def test_parts_equal_the_whole(name, parts):
    """A cached forward of any number of tokens goes on where the last one ended."""
    if name == "hybrid" and 0 in parts:
        pytest.skip("attention of transformers needs a token")
    model, text = build(name), tokens(2, 12)
    cache = StatemixCache(model.config)
    with torch.no_grad():
        whole = model(text, use_cache=False).logits
        logits = [model(part, cache=cache).logits for part in text.split(parts, dim=1)]
    close(torch.cat(logits, 1), whole)
    assert cache.get_seq_length() == 12


@pytest.mark.parametrize("name", RECURRENT)
def test_the_size_is_constant(name):
    model, cache = build(name), StatemixCache(config(name))
    assert cache.recurrent and cache.nbytes == 0
    with torch.no_grad():
        sizes = [model(tokens(2, 3), cache=cache) and cache.nbytes for _ in range(3)]
    assert sizes[0] > 0 and sizes == sizes[:1] * 3


def test_keys_and_values_grow():
    model, cache = build("hybrid"), StatemixCache(config("hybrid"))
    assert not cache.recurrent
    with torch.no_grad():
        sizes = [model(tokens(2, 3), cache=cache) and cache.nbytes for _ in range(3)]
    assert (
        sizes[2] - sizes[1] == sizes[1] - sizes[0] == 2 * 2 * 3 * 2 * 8 * 4
    )  # two tensors, B, T, heads, width, bytes


@pytest.mark.parametrize("name", MODELS)
def test_both_names_of_the_argument(name):
    model, text = build(name), tokens(1, 6)
    with torch.no_grad():
        ends = []
        for key in ("cache", "past_key_values"):
            cache = StatemixCache(model.config)
            model(text[:, :4], **{key: cache})
            ends.append(model.model(text[:, 4:], **{key: cache}).last_hidden_state)
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", MODELS)
def test_roll_back(name):
    """Speculative decoding: five drafted tokens are read at once, two are accepted, the rest is undone."""
    model, text, draft = build(name), tokens(2, 8), tokens(2, 5, seed=1)
    cache = StatemixCache(model.config)
    with torch.no_grad():
        model(text, cache=cache)
        before = cache.snapshot()
        verified = model(draft, cache=cache).logits
        assert cache.get_seq_length() == 13
        cache.restore(before)
        assert cache.get_seq_length() == 8
        accepted = model(draft[:, :2], cache=cache).logits
        after = model(tokens(2, 1, seed=2), cache=cache).logits
        never = StatemixCache(model.config)  # what a cache gives that has never seen the rejected tokens
        model(torch.cat([text, draft[:, :2]], 1), cache=never)
        expected = model(tokens(2, 1, seed=2), cache=never).logits
    close(accepted, verified[:, :2])
    close(after, expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_common_prefix(name, tmp_path):
    """A snapshot serves many texts: from a file, in another cache, for a larger batch."""
    model, prefix = build(name), tokens(1, 9)
    cache = StatemixCache(model.config)
    with torch.no_grad():
        model(prefix, cache=cache)
        save_file(cache.snapshot(), tmp_path / "prefix.safetensors")
        snapshot = load_file(tmp_path / "prefix.safetensors")
        for ending in (tokens(3, 2, seed=1), tokens(3, 4, seed=2)):
            other = StatemixCache(model.config)
            other.restore(snapshot)
            other.batch_repeat_interleave(3)
            logits = model(ending, cache=other).logits
            text = torch.cat([prefix.expand(3, -1), ending], 1)
            close(logits, model(text, use_cache=False).logits[:, 9:])


def test_a_snapshot_owns_its_storage():
    model, cache = build(), StatemixCache(config())
    with torch.no_grad():
        model(tokens(1, 4), cache=cache)
        snapshot = cache.snapshot()
        kept = {name: tensor.clone() for name, tensor in snapshot.items()}
        cache.restore(snapshot)
        for layer in cache.layers:
            layer.states[0].fill_(torch.nan)
    assert all(torch.equal(snapshot[name], kept[name]) for name in kept)


def test_an_empty_cache_is_restored_too():
    model, cache = build(), StatemixCache(config())
    empty = cache.snapshot()
    with torch.no_grad():
        first = model(tokens(1, 4), cache=cache).logits
        cache.restore(empty)
        assert cache.get_seq_length() == 0
        assert torch.equal(model(tokens(1, 4), cache=cache).logits, first)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_reordered_repeated_and_chosen(name):
    model, text, ending = build(name), tokens(3, 6), tokens(1, 2, seed=1)
    order = torch.tensor([2, 0, 0, 1])
    changes = {
        "reorder_cache": (order[:3], order[:3]),
        "batch_select_indices": (order, order),
        "batch_repeat_interleave": (2, torch.tensor([0, 0, 1, 1, 2, 2])),
    }
    for method, (argument, rows) in changes.items():
        cache = StatemixCache(model.config)
        with torch.no_grad():
            model(text, cache=cache)
            getattr(cache, method)(argument)
            logits = model(ending.expand(len(rows), -1), cache=cache).logits
            whole = torch.cat([text[rows], ending.expand(len(rows), -1)], 1)
            close(logits, model(whole, use_cache=False).logits[:, 6:])


def test_reset():
    model, cache = build("block"), StatemixCache(config("block"))
    with torch.no_grad():
        first = model(tokens(2, 4), cache=cache).logits
        cache.reset()
        assert cache.get_seq_length() == 0 and cache.nbytes == 0
        assert torch.equal(model(tokens(2, 4), cache=cache).logits, first)


def test_gradients_go_through_a_carried_state():
    """Truncated backpropagation needs them to stop only where one says so."""
    model = build("block").train()
    cache = StatemixCache(model.config)
    model(tokens(2, 5), cache=cache)
    model(tokens(2, 3, seed=1), cache=cache).logits.sum().backward()
    joined = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model(torch.cat([tokens(2, 5), tokens(2, 3, seed=1)], 1), use_cache=False).logits[:, 5:].sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(joined[name], parameter.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_crop_is_refused_by_recurrent_layers(name):
    cache = StatemixCache(config(name))
    with pytest.raises(NotImplementedError, match=r"take a snapshot\(\)"):
        cache.layers[0].crop(-1)
    assert not cache.is_croppable and not cache.is_compileable


def test_bad_caches():
    model, text = build(), tokens(2, 3)
    with pytest.raises(TypeError, match="cache: got DynamicCache, expected a StatemixCache"):
        model(text, cache=DynamicCache())
    with pytest.raises(ValueError, match="cache: got 3 layers, expected 2"):
        model(text, cache=StatemixCache(config(num_hidden_layers=3)))
    cache = StatemixCache(config())
    with torch.no_grad():
        model(text, cache=cache)
    with pytest.raises(ValueError, match="cache: got a batch of 2, expected 5 sequences"):
        model(tokens(5, 3), cache=cache)


def test_bad_snapshots():
    model, cache = build(), StatemixCache(config())
    with torch.no_grad():
        model(tokens(1, 3), cache=cache)
    snapshot = cache.snapshot()
    with pytest.raises(
        ValueError, match=r"snapshot: got 'layers\.2\.state0', expected tensors of layers 0 to 1"
    ):
        cache.restore({**snapshot, "layers.2.state0": torch.ones(1)})
    with pytest.raises(ValueError, match=r"snapshot: nothing for layers \[1\]"):
        cache.restore({name: one for name, one in snapshot.items() if not name.startswith("layers.1")})
    with pytest.raises(
        ValueError, match=r"snapshot: got 'layers\.1\.state0', expected keys and values there"
    ):
        StatemixCache(config("hybrid")).restore(snapshot)
    with pytest.raises(TypeError, match="got keys and values for a recurrent layer"):
        cache.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), 0)
    assert cache.get_seq_length() == 3  # the refused ones changed nothing
