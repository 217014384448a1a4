"""`statemix-research baselines`."""

from __future__ import annotations

import json

import pytest
import torch
from statemix_research.baselines import kernels, verify

from statemix.nn import MIXERS
from statemix.training import resolve_config, train


@pytest.fixture
def few(monkeypatch):
    """One baseline in plain torch, and two with a kernel that is not installed, in chunks instead."""
    monkeypatch.setattr(kernels, "INSTALLED", False)
    cases = [case for case in verify.COMPARISONS if case.baseline in ("attention", "rwkv7", "mamba2")]
    monkeypatch.setattr("statemix_research.baselines.verify.COMPARISONS", cases)
    return cases


def test_lists_what_runs_and_writes_what_was_found(research, tmp_path, few):
    done = research("baselines --device cpu --out found/baselines.json")
    assert (done.code, done.out.count("ok")) == (0, 3)
    missing = 'mamba2, rwkv7: flash-linear-attention is not installed: pip install "flash-linear-attention>='
    assert missing in done.out
    record = json.loads((tmp_path / "found" / "baselines.json").read_text())
    assert record["bench"] == "baselines" and record["environment"]["versions"]["torch"] == str(
        torch.__version__
    )
    by_name = {check["baseline"]: check for check in record["checks"]}
    assert by_name["attention"]["passed"] is True
    for name in ("mamba2", "rwkv7"):
        assert by_name[name]["passed"] is True and by_name[name]["runs"] == "torch, chunks of 64"
    assert set(by_name["attention"]["gradient_errors"]) == {"q", "k", "v"}
    assert by_name["attention"]["output_error"] < by_name["attention"]["bound"]


def test_some_baselines_by_name(research, few):
    done = research("baselines attention --device cpu")
    assert (done.code, done.out.count("attention") > 0, done.out.count("rwkv7")) == (0, True, 0)
    done = research("baselines mamba --device cpu")
    assert done.code == 2
    assert "baselines: got 'mamba', expected some of " in done.err and "attention" in done.err


def test_a_wrong_baseline_is_the_exit_code(research, monkeypatch, few):
    broken = [
        case._replace(fast=lambda q, k, v: (q + k + v,)) for case in few if case.baseline == "attention"
    ]
    monkeypatch.setattr("statemix_research.baselines.verify.COMPARISONS", broken)
    done = research("baselines --device cpu")
    assert done.code == 1
    assert "WRONG" in done.out
    assert "error: 1 comparisons failed: attention" in done.err


@pytest.mark.parametrize("device", ["tpu", "meta"])
def test_devices_that_are_not_there(research, device):
    done = research(f"baselines --device {device}")
    assert done.code == 2
    assert f"device: got '{device}', expected one of auto, cpu" in done.err


def test_every_baseline_is_among_the_cases():
    assert {case.baseline for case in verify.COMPARISONS} == set(MIXERS) - {"bdlru", "hlru"}


def test_a_baseline_trains(tmp_path):
    """It reaches configurations through the entry point of this package."""
    tiny = ["training.steps=2", "training.warmup=1", "training.batch_size=4", "training.train_examples=8",
            "training.eval_examples=4", "training.eval_lengths=[16]", "model.dim=16", "model.depth=1"]  # fmt: skip
    for name in ("lru", "attention"):
        config = resolve_config(overrides=[f"mixer.name={name}", *tiny])
        summary = train(config, tmp_path / name, progress=False)
        assert summary["status"] == "finished"
    assert summary["state_size"] == 2 * 16 * config.to_dict()["task"].get("length", 16)
