"""What `statemix eval` says of a run that is not as it should be."""

from __future__ import annotations

import json

import pytest
import torch

from statemix.training.files import read_json


def test_a_run_that_is_not_finished(statemix, stopped):
    done = statemix(f"eval {stopped}")
    assert done.code == 0
    assert "accuracy" in done.out
    note = f"note: {stopped} is not finished: the run has not come to an end (saved at step 23 of 60)"
    assert done.err.startswith(note)
    assert done.err.count("\n") == 1
    (stopped / "model.safetensors").unlink()
    done = statemix(f"eval {stopped}")
    assert (done.code, done.out) == (1, "")
    assert "has no model.safetensors: the run has not come to an end (saved at step 23 of 60)" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_run_from_a_gpu(statemix, finished):
    path = finished / "config.json"
    content = read_json(path)
    path.write_text(json.dumps(content | {"training": content["training"] | {"device": "cuda"}}))
    done = statemix(f"eval {finished}")
    assert done.code == 0
    assert done.err.startswith("note: training.device: got 'cuda', which cannot be used here: ")
    assert done.err.endswith("; evaluating on 'cpu'\n")
