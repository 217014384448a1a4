"""Runs of the comparison are trained in turn, as long as the time lasts, and leave a line each."""

from __future__ import annotations

import json
from functools import partial

import pytest

pytest.importorskip("accelerate", reason="needs the extra lm")
pytest.importorskip("tokenizers", reason="needs the extra text")

from statemix_research.cli.language import _read
from statemix_research.language import execute, plan
from statemix_research.language.plan import QualityRun
from statemix_research.language.quality import Setting

from statemix.packs import build_source, prepare_pack

SMALL = Setting(vocab_size=300, dim=16, depth=1, mixer_size=4_000, length=16, batch_size=4)
RUNS = [QualityRun("rates", "BD-LRU m = 2", rate) for rate in (1e-3, 2e-3)]


@pytest.fixture
def pack(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "lm_settings", partial(plan.lm_settings, setting=SMALL))
    monkeypatch.setattr(execute, "SETTING", SMALL)
    monkeypatch.setitem(execute.RUNTIME, "compile", False)
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text(f"Note {number}. " * 12)
    prepare_pack(build_source([str(tmp_path)]), tmp_path / "pack", validation=0.2)
    return tmp_path / "pack"


def test_each_run_leaves_an_outcome(pack, tmp_path):
    said = []
    found = execute.execute(RUNS, pack, tmp_path / "runs", 1000, said.append)
    assert [one.run for one in found] == RUNS
    assert all(0 < one.loss < 7 and one.epoch_seconds > 0 for one in found)
    assert _read(tmp_path / "runs" / execute.OUTCOMES) == found
    assert len(said) == 2 and said[0].startswith("BD-LRU m = 2, 0.001, seed 0: ")
    places = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert {path.name for path in places} == {"rates-BD-LRU-m-2-0.001-0", "rates-BD-LRU-m-2-0.002-0"}
    for place in places:
        assert json.loads((place / "summary.json").read_text())["status"] == "finished"
        assert not (place / "model.safetensors").exists() and not (place / "checkpoints").exists()


@pytest.mark.slow
def test_no_run_is_begun_that_does_not_fit(pack, tmp_path):
    said = []
    assert execute.execute(RUNS, pack, tmp_path / "runs", 50, said.append) == []
    assert said == [
        "left for later: BD-LRU m = 2, 0.001, seed 0",
        "left for later: BD-LRU m = 2, 0.002, seed 0",
    ]
    measured = [plan.Outcome(RUNS[0], 1.0, 10.0)]
    found = execute.execute(RUNS[1:], pack, tmp_path / "runs", 50, said.append, measured)
    assert [one.run for one in found] == RUNS[1:]
