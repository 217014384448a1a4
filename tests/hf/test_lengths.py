"""Padding and packed documents: every sequence gives what it gives alone."""

from __future__ import annotations

import pytest
import torch
from transformers import DataCollatorWithFlattening

from statemix.hf import StatemixCache
from tests.hf.small import MODELS, RECURRENT, build, tokens

LENGTHS = (9, 1, 4)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def texts():
    return [tokens(1, length, seed=length) for length in LENGTHS]


def padded(side, width=9):
    """The texts in rows of 9, and their mask."""
    rows, mask = tokens(len(LENGTHS), width, seed=7), torch.zeros(len(LENGTHS), width, dtype=torch.long)
    for row, text in enumerate(texts()):
        place = slice(width - text.shape[1], width) if side == "left" else slice(text.shape[1])
        rows[row, place], mask[row, place] = text, 1
    return rows, mask


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", [torch.long, torch.bool])
def test_padding_is_exact(name, side, kind):
    model, (rows, mask) = build(name), padded(side)
    with torch.no_grad():
        logits = model(rows, attention_mask=mask.to(kind)).logits
        hidden = model.model(rows, attention_mask=mask.to(kind)).last_hidden_state
        for row, text in enumerate(texts()):
            real = mask[row] == 1
            close(logits[row][real], model(text).logits[0])
            if (
                name in RECURRENT and text.shape[1] > 1
            ):  # on the CPU the same bits; a single token takes `step`
                assert torch.equal(hidden[row][real], model.model(text).last_hidden_state[0])


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_then_tokens(name):
    """Prefill in two chunks, whose first one is padding alone in two rows, then three tokens one by one."""
    model, (rows, mask) = build(name), padded("left")
    cache, more = StatemixCache(model.config), tokens(3, 3, seed=8)
    with torch.no_grad():
        model(rows[:, :5], attention_mask=mask[:, :5], cache=cache)
        model(rows[:, 5:], attention_mask=mask, cache=cache)
        for place in range(3):
            mask = torch.cat([mask, mask.new_ones(3, 1)], 1)
            logits = model(more[:, place : place + 1], attention_mask=mask, cache=cache).logits
        for row, text in enumerate(texts()):
            close(logits[row, -1], model(torch.cat([text, more[row : row + 1]], 1)).logits[0, -1])


@pytest.mark.parametrize("name", RECURRENT)
def test_a_padded_token_leaves_the_state(name):
    """A forward of one token of which one is padding, as in a prompt read token by token."""
    model = build(name)
    one, other = StatemixCache(model.config), StatemixCache(model.config)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1]])
    with torch.no_grad():
        for place in range(3):
            part = slice(place, place + 1)
            logits = model(tokens(2, 3)[:, part], attention_mask=mask[:, : place + 1], cache=one).logits
        close(logits[:1], model(tokens(2, 3)[:1], cache=other).logits[:, -1:])
        close(logits[1:], model(tokens(2, 3)[1:, 1:]).logits[:, -1:])


def collated(**options):
    collate = DataCollatorWithFlattening(return_tensors="pt", **options)
    return collate([{"input_ids": text[0].tolist()} for text in texts()])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bounds", [False, True])
def test_packed_documents_are_exact(name, bounds):
    """By positions alone, and by the bounds that the collator gives for flash attention."""
    model, batch = build(name), collated(return_flash_attn_kwargs=bounds)
    assert ("cu_seq_lens_q" in batch) == bounds
    labels = batch.pop("labels")
    with torch.no_grad():
        outputs = model(**batch, labels=labels)
        alone = [model(text).logits[0] for text in texts()]
    close(outputs.logits[0], torch.cat(alone))
    targets = torch.cat([text[0] for text in texts()])
    begins = [sum(LENGTHS[:place]) for place in range(len(LENGTHS))]
    counted = [place for place in range(1, sum(LENGTHS)) if place not in begins]
    expected = torch.nn.functional.cross_entropy(torch.cat(alone)[[p - 1 for p in counted]], targets[counted])
    close(outputs.loss, expected)


@pytest.mark.parametrize("name", MODELS)
def test_bounds_alone_are_enough(name):
    model, bounds = build(name), torch.tensor([0, 9, 10, 14], dtype=torch.int32)
    with torch.no_grad():
        logits = model(torch.cat(texts(), 1), cu_seq_lens_q=bounds).logits
        close(logits[0], torch.cat([model(text).logits[0] for text in texts()]))


@pytest.mark.parametrize("name", MODELS)
def test_several_rows_of_documents(name):
    model, rows = build(name), tokens(2, 8)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 0]])
    with torch.no_grad():
        logits = model(rows, position_ids=positions).logits
        for row, cuts in enumerate(([3, 5], [7, 1])):
            alone = [model(part).logits[0] for part in rows[row : row + 1].split(cuts, dim=1)]
            close(logits[row], torch.cat(alone))


@pytest.mark.parametrize("name", MODELS)
def test_documents_do_not_share_gradients(name):
    model = build(name)
    embedded = model.get_input_embeddings()(tokens(1, 8)).detach().requires_grad_()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    model(inputs_embeds=embedded, position_ids=positions).logits[0, 4:].sum().backward()
    assert not embedded.grad[0, :4].any() and embedded.grad[0, 4:].any()


@pytest.mark.gpu
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu(name, side):
    """Padding, packed documents and prefill in chunks give on a GPU what each text gives alone."""
    model, (rows, mask) = build(name).cuda(), padded(side)
    rows, mask = rows.cuda(), mask.cuda()
    with torch.no_grad():
        alone = [model(text.cuda()).logits[0] for text in texts()]
        logits = model(rows, attention_mask=mask).logits
        packed = model(**{k: v.cuda() for k, v in collated().items() if k != "labels"}).logits
        cache = StatemixCache(model.config)
        parts = [
            model(rows[:, :end][:, begin:], attention_mask=mask[:, :end], cache=cache).logits
            for begin, end in ((0, 4), (4, 5), (5, 9))
        ]
    near = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(packed[0], torch.cat(alone), **near)
    for row, expected in enumerate(alone):
        real = mask[row] == 1
        torch.testing.assert_close(logits[row][real], expected, **near)
        torch.testing.assert_close(torch.cat(parts, 1)[row][real], expected, **near)


def test_plain_positions_are_no_packing():
    model, text = build(), tokens(2, 6)
    with torch.no_grad():
        outputs = model(text, position_ids=torch.arange(6)[None], use_cache=True)
        assert torch.equal(outputs.logits, model(text).logits)
    assert any(isinstance(value, StatemixCache) for value in outputs.values())


def test_packed_documents_give_no_cache():
    outputs = build()(**{k: v for k, v in collated().items() if k != "labels"}, use_cache=True)
    assert not any(isinstance(value, StatemixCache) for value in outputs.values())


@pytest.mark.parametrize("name", RECURRENT)
def test_a_hole_is_refused(name):
    model, mask = build(name), torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]])
    with pytest.raises(ValueError, match="mask: row 1 is False at position 1 between real tokens"):
        model(tokens(2, 4), attention_mask=mask)


def test_bad_lengths():
    model, cache = build(), StatemixCache(build().config)
    with pytest.raises(ValueError, match=r"attention_mask: got shape \[2, 3\], expected \[2, 4\]"):
        model(tokens(2, 4), attention_mask=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"attention_mask: got shape \[2, 4, 4\]"):
        model(tokens(2, 4), attention_mask=torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match="cache: got one beside packed documents"):
        model(tokens(1, 4), cu_seq_lens_q=torch.tensor([0, 2, 4]), cache=cache)
    with torch.no_grad():
        model(tokens(1, 4), cache=cache)
    with pytest.raises(ValueError, match="cu_seq_lens_q: got bounds behind 4 cached tokens"):
        model(tokens(1, 4), cu_seq_lens_q=torch.tensor([0, 2, 4]), cache=cache)
    with pytest.raises(ValueError, match="cu_seqlens"):
        model(tokens(1, 4), cu_seq_lens_q=torch.tensor([0, 2, 5]))
    with pytest.raises(ValueError, match="input_ids, inputs_embeds: expected one of them"):
        model()
    hybrid = build("hybrid")
    behind = StatemixCache(hybrid.config)
    with torch.no_grad():
        hybrid(tokens(1, 4), cache=behind)
    with pytest.raises(ValueError, match=r"attention_mask: got shape \[1, 2\], expected \[1, 6\]"):
        hybrid(tokens(1, 2), attention_mask=torch.ones(1, 2), cache=behind)
