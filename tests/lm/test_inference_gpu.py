"""Evaluation and generation on a GPU give what the CPU gives."""

from __future__ import annotations

import pytest
import torch

from statemix.lm import Sampling, evaluate, generate
from statemix.packs import ByteTokenizer
from tests.lm.trained import model

pytestmark = pytest.mark.gpu


def test_equal_losses(held_out):
    one = model().float()
    expected = evaluate(one, held_out, cut="documents", length=64, carry_state=True)
    exact = evaluate(one.cuda(), held_out, cut="documents", length=64, carry_state=True, precision="float32")
    near = evaluate(one, held_out, cut="documents", length=64, carry_state=True)
    assert exact.loss == pytest.approx(expected.loss, rel=1e-3)
    assert near.loss == pytest.approx(expected.loss, rel=0.03)
    assert (near.tokens, near.units) == (expected.tokens, expected.units)


def test_replayed_text_is_that_of_whole_forwards():
    pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)
    from statemix.hf import config_of, from_language_model

    plain = model(norm="rms").float().cuda()
    twin = from_language_model(plain, config_of(plain, {"name": "bdlru", "block_size": 4})).eval()
    tokens = list(b"The state")
    with torch.no_grad():
        for _ in range(24):
            tokens.append(int(plain(torch.tensor([tokens], device="cuda"))[0][0, -1].argmax()))
    wanted = ByteTokenizer().decode(tokens[9:])
    for one in (plain, twin):
        text = "".join(
            generate(one, ByteTokenizer(), "The state", max_tokens=24, sampling=Sampling(0), prefill=4)
        )
        assert text == wanted
