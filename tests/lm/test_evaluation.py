"""Held-out losses against a loop over sequences, and the numbers made of them."""

from __future__ import annotations

import math

import pytest
import torch

from statemix.lm import evaluation, heldout
from statemix.lm.evaluation import evaluate
from statemix.lm.loss import IGNORED
from statemix.packs import Batch, Batches
from tests.lm.trained import losses, model


def documents(held_out):
    return [held_out.document(number) for number in range(len(held_out))]


def chunks(held_out, length, tokens):
    """(tokens, the one before) of every sequence of a split."""
    for begin in range(0, tokens, length):
        before = held_out.end_of_document if begin == 0 else int(held_out.read(begin - 1, begin)[0])
        yield held_out.read(begin, min(begin + length, tokens)), before


def expected(units):
    """(loss, standard error) of the losses of each unit."""
    count = sum(map(len, units))
    loss = float(sum(unit.sum() for unit in units)) / count
    squares = sum(float(unit.sum() - loss * len(unit)) ** 2 for unit in units)
    return loss, math.sqrt(squares * len(units) / (len(units) - 1)) / count


@pytest.mark.parametrize("batch_size", [1, 5])
def test_sequences_are_predicted_one_by_one(held_out, batch_size):
    one = model()
    result = evaluate(one, held_out, length=50, batch_size=batch_size)
    units = [losses(one, *chunk) for chunk in chunks(held_out, 50, held_out.tokens)]
    assert (result.loss, result.standard_error) == pytest.approx(expected(units), rel=1e-6)
    assert (result.tokens, result.bytes, result.units) == (held_out.tokens, held_out.bytes, len(units))
    nats = float(sum(unit.sum() for unit in units))
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / held_out.bytes, rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(result.loss))


def test_a_carried_state_makes_one_row_one_sequence(held_out):
    one = model()
    result = evaluate(one, held_out, length=50, batch_size=1, carry_state=True)
    whole = losses(one, held_out.read(0, held_out.tokens), held_out.end_of_document)
    assert result.loss == pytest.approx(float(whole.mean()), rel=1e-6)
    assert result.by_context[-1].last == held_out.tokens


def test_rows_of_a_carried_state_part_the_split(held_out):
    one, tokens = model(), 900
    result = evaluate(one, held_out, length=50, batch_size=4, carry_state=True, max_tokens=tokens)
    rows = [losses(one, *chunk) for chunk in chunks(held_out, 250, tokens)]  # five pieces a row
    units = [unit for row in rows for unit in row.split(50)]
    assert (result.loss, result.standard_error) == pytest.approx(expected(units), rel=1e-6)
    assert (result.tokens, result.by_context[-1].last) == (tokens, 250)


@pytest.mark.parametrize(("batch_size", "carry_state"), [(1, False), (7, True)])
def test_documents_are_predicted_one_by_one(held_out, batch_size, carry_state):
    one, length = model(), 64
    result = evaluate(
        one, held_out, cut="documents", length=length, batch_size=batch_size, carry_state=carry_state
    )
    units = []
    for document in documents(held_out):
        befores = [held_out.end_of_document, *document.tolist()]
        step = len(document) if carry_state else length
        parts = [losses(one, document[k : k + step], befores[k]) for k in range(0, len(document), step)]
        units.append(torch.cat(parts))
    assert max(map(len, units)) > length  # some have several pieces
    assert (result.loss, result.standard_error) == pytest.approx(expected(units), rel=1e-6)
    assert (result.tokens, result.bytes, result.units) == (held_out.tokens, held_out.bytes, len(held_out))


def test_documents_end_whole(held_out):
    result = evaluate(model(), held_out, cut="documents", max_tokens=len(held_out.document(0)) + 1)
    assert result.units == 2
    assert result.tokens == len(held_out.document(0)) + len(held_out.document(1))
    assert result.bytes == held_out.document_bytes(0) + held_out.document_bytes(1)


def test_bytes_of_a_cut_document_are_its_share(held_out):
    first, second = len(held_out.document(0)), len(held_out.document(1))
    wanted = held_out.document_bytes(0) + held_out.document_bytes(1) * 3 / second
    assert evaluate(model(), held_out, max_tokens=first + 3).bytes == pytest.approx(wanted)


@pytest.mark.parametrize("cut", ["sequences", "documents"])
def test_losses_by_context(held_out, cut):
    one, length = model(), 20
    result = evaluate(one, held_out, cut=cut, length=length)
    assert [(found.first, found.last) for found in result.by_context] == [
        (1, 1),
        (2, 3),
        (4, 7),
        (8, 15),
        (16, 20),
    ]
    assert sum(found.tokens for found in result.by_context) == result.tokens
    mean = sum(found.tokens * found.loss for found in result.by_context) / result.tokens
    assert mean == pytest.approx(result.loss)
    if cut == "sequences":
        units = [losses(one, *chunk) for chunk in chunks(held_out, length, held_out.tokens)]
        third = torch.cat([unit[3:7] for unit in units])
        assert result.by_context[2].loss == pytest.approx(float(third.mean()), rel=1e-6)
        assert result.by_context[2].perplexity == pytest.approx(math.exp(float(third.mean())), rel=1e-5)


def test_a_model_that_knows_nothing(held_out):
    one = model()
    torch.nn.init.zeros_(one.head.weight)
    result = evaluate(one, held_out)
    assert result.loss == pytest.approx(math.log(257))
    assert result.standard_error == pytest.approx(0, abs=1e-6)
    assert result.bits_per_byte == pytest.approx(math.log2(257) * held_out.tokens / held_out.bytes)


def test_batches_with_bounds_begin_empty(held_out):
    one, batches = model(), Batches(held_out, 2, 100, seed=0, cu_seqlens=True)
    result, units = evaluate(one, batches), []
    for step in range(len(batches)):
        batch = batches[step]
        bounds = batch.cu_seqlens.tolist()
        for begin, end in zip(bounds, bounds[1:], strict=False):
            row = batch.inputs[0, begin:end].numpy()
            after = batch.targets[0, begin:end].numpy()
            units.append(losses(one, [*row[1:], after[-1]], row[0]))
    assert (result.loss, result.standard_error) == pytest.approx(expected(units), rel=1e-6)
    assert result.by_context[0].tokens == len(units)
    assert result.bytes == pytest.approx(result.tokens * held_out.bytes_per_token)


def test_batches_of_ones_own():
    rows = torch.arange(12).reshape(2, 6)
    result = evaluate(model(), [Batch(rows), Batch(rows)])
    assert (result.tokens, result.units, result.bytes, result.bits_per_byte) == (20, 4, None, None)
    assert result.length is None and result.cut == "batches"


def test_logits_are_made_in_chunks(held_out, monkeypatch):
    one, rows = model(), []
    whole = evaluate(one, held_out, length=100)
    one.head.register_forward_hook(lambda module, inputs, logits: rows.append(logits.numel()))
    monkeypatch.setattr(evaluation, "LOGITS", 257 * 30)
    assert evaluate(one, held_out, length=100) == whole
    assert max(rows) == 257 * 30


def test_the_model_stays_as_it_was(held_out):
    one = model(block={"dropout": 0.5}).train()
    first = evaluate(one, held_out, max_tokens=300)
    assert one.training and first == evaluate(one, held_out, max_tokens=300)
    assert all(parameter.grad is None for parameter in one.parameters())


def test_bfloat16_is_near(held_out):
    one = model().float()
    exact, near = (evaluate(one, held_out, precision=precision) for precision in ("float32", "bfloat16"))
    assert near.loss == pytest.approx(exact.loss, rel=0.02) and near.loss != exact.loss


def test_rows_of_a_group_are_about_equally_long(held_out):
    found = heldout.pieces(
        held_out, cut="documents", length=1 << 20, batch_size=8, tokens=held_out.tokens, carry_state=False
    )
    targets = [piece.targets for piece in found]
    assert sum(one.numel() for one in targets) < 1.2 * held_out.tokens
    assert sum(int((one != IGNORED).sum()) for one in targets) == held_out.tokens


def test_as_plain_data(held_out):
    content = evaluate(model(), held_out, max_tokens=100).to_dict()
    assert content["perplexity"] == pytest.approx(math.exp(content["loss"]))
    assert content["by_context"][0].keys() == {"first", "last", "tokens", "loss", "perplexity"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"length": 0}, "length: got 0, expected a whole number of at least 1"),
        ({"length": True}, "length: got True"),
        ({"batch_size": -1}, "batch_size: got -1"),
        ({"max_tokens": 0}, "max_tokens: got 0"),
        ({"cut": "words"}, "cut: got 'words', expected 'sequences' or 'documents'"),
        ({"precision": "float8"}, "precision: got 'float8'"),
    ],
)
def test_bad_arguments(held_out, options, words):
    with pytest.raises(ValueError, match=words):
        evaluate(model(), held_out, **options)


def test_other_models_and_vocabularies(held_out):
    with pytest.raises(TypeError, match="model: got Linear, expected a LanguageModel"):
        evaluate(torch.nn.Linear(2, 2), held_out)
    with pytest.raises(ValueError, match="vocab_size: got 256, expected at least 257"):
        evaluate(model(256), held_out)
    with pytest.raises(ValueError, match="data: got no tokens"):
        evaluate(model(), [])


def test_a_loss_that_is_not_finite(held_out):
    one = model()
    torch.nn.init.constant_(one.head.weight, math.nan)
    with pytest.raises(FloatingPointError, match="loss: got nan behind 0 tokens"):
        evaluate(one, held_out)
