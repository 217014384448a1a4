"""What `statemix eval` says of a run that is not as it should be."""

from __future__ import annotations

import json
import os

import pytest
import torch

from statemix.training import loop as loops
from statemix.training import train
from statemix.training.files import read_json
from tests.training.small import small


def test_a_run_that_is_not_finished(statemix, tmp_path, monkeypatch):
    step = loops.Run._step

    def asking(self, most):
        step(self, min(most, 1))
        if self.step == 3:
            os.kill(os.getpid(), 15)

    with monkeypatch.context() as patch:
        patch.setattr(loops.Run, "_step", asking)
        train(small(), tmp_path / "run")
    done = statemix(f"eval {tmp_path}/run")
    assert done.code == 0
    assert "accuracy" in done.out
    note = f"note: {tmp_path}/run is not finished: the run has not come to an end (saved at step 3 of 60)"
    assert done.err.startswith(note)
    assert done.err.count("\n") == 1
    (tmp_path / "run" / "model.safetensors").unlink()
    done = statemix(f"eval {tmp_path}/run")
    assert (done.code, done.out) == (1, "")
    assert "has no model.safetensors: the run has not come to an end (saved at step 3 of 60)" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_run_from_a_gpu(statemix, tmp_path):
    train(small("training.steps=5"), tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = read_json(path)
    path.write_text(json.dumps(content | {"training": content["training"] | {"device": "cuda"}}))
    done = statemix(f"eval {tmp_path}/run")
    assert done.code == 0
    assert done.err.startswith("note: training.device: got 'cuda', which cannot be used here: ")
    assert done.err.endswith("; evaluating on 'cpu'\n")
