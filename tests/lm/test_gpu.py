"""On a GPU: bfloat16, several micro-batches, a resumed run, a compiled one."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="needs the extra `lm`")
pytest.importorskip("accelerate", reason="needs the extra `lm`")

from statemix.lm import train_language_model
from tests.lm.small import config, lines, losses


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_a_gpu_computes_what_a_cpu_does(pack, whole, tmp_path, compiled):
    made = config(pack, "training.device=cuda", "training.micro_batch=4", f"training.compile={compiled}")
    summary = train_language_model(made, tmp_path, progress=False)
    assert summary["status"] == "finished" and 0 < summary["mfu"] < 1
    assert lines(tmp_path, "start")[0]["precision"] == "bfloat16"
    for step, (loss, *_) in losses(whole).items():
        assert losses(tmp_path)[step][0] == pytest.approx(loss, rel=0.02)


@pytest.mark.gpu
def test_a_gpu_in_float32(pack, whole, tmp_path):
    made = config(pack, "training.device=cuda", "training.precision=float32")
    train_language_model(made, tmp_path, progress=False)
    for step, (loss, *_) in losses(whole).items():
        assert losses(tmp_path)[step][0] == pytest.approx(loss, rel=1e-3)
