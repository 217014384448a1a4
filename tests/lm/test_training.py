"""What a run computes does not depend on how it is carried out; options of the model and the data take part."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("transformers", reason="needs the extra `lm`")
pytest.importorskip("accelerate", reason="needs the extra `lm`")

from statemix.lm import load_language_model, train_language_model
from tests.lm.small import config, lines, losses, weights


def test_micro_batches_and_chunks_add_up(pack, whole, tmp_path):
    made = config(pack, "training.micro_batch=2", "training.loss_chunk=5")
    summary = train_language_model(made, tmp_path, progress=False)
    for step, (loss, norm, rate) in losses(whole).items():
        assert losses(tmp_path)[step] == (pytest.approx(loss, rel=1e-4), pytest.approx(norm, rel=1e-3), rate)
    assert (
        summary["tokens"] == 24 * 8 * 32
        and summary["bits_per_byte"] == lines(tmp_path, "eval")[-1]["bits_per_byte"]
    )


def test_dropout_resumes_exactly(pack, whole, tmp_path):
    made = config(pack, "block.dropout=0.2", "model.tie_embeddings=true")
    train_language_model(made, tmp_path / "whole", progress=False)
    resumed = shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    (resumed / "summary.json").unlink()
    (resumed / "model.safetensors").unlink()
    train_language_model(made, resumed, progress=False)
    assert [line["step"] for line in lines(resumed, "start")] == [0, 20]
    assert losses(resumed) == losses(tmp_path / "whole") != losses(whole)
    assert weights(resumed) == weights(tmp_path / "whole")
    _, model = load_language_model(resumed)
    assert model.head.weight is model.embedding.weight and model.layers[0].dropout == 0.2


def test_documents_begin_with_empty_states(pack, whole, tmp_path):
    train_language_model(config(pack, "data.documents=true", "training.steps=4"), tmp_path, progress=False)
    found, plain = losses(tmp_path), losses(whole)
    assert found[1][0] != plain[1][0]
    assert found[1][0] == pytest.approx(plain[1][0], rel=0.02)


def test_the_rate_rises_and_falls(whole):
    rates = [rate for _, _, rate in losses(whole).values()]
    assert rates[:4] == pytest.approx([0.00075, 0.0015, 0.00225, 0.003]) and rates[4] == pytest.approx(0.003)
    assert all(one > other for one, other in zip(rates[4:], rates[5:], strict=False))
