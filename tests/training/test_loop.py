"""Whole runs: they learn, they end as they should, and their files say so."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from statemix.training import evaluate_run, load_run, train
from statemix.training.files import read_json
from tests.training.small import small


def lines(folder, kind=None):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if kind in (None, entry["kind"])]


def test_a_run_learns_and_its_files_are_the_documented_ones(tmp_path, capfd):
    config = small(
        "task.n=2",
        "training.steps=300",
        "training.eval_every=100",
        "training.lr=0.02",
        "training.checkpoint_every=100",
    )
    summary = train(config, tmp_path / "run")
    folder = tmp_path / "run"
    assert summary["status"] == "finished"
    assert summary["accuracy"]["6"] == 1.0
    assert set(summary["accuracy"]) == {"6", "12"}
    assert summary == read_json(folder / "summary.json")
    assert {
        "parameters",
        "mixer_parameters",
        "state_size",
        "flops_per_token",
        "best_accuracy",
        "seconds",
    } < set(summary)
    assert read_json(folder / "config.json") == config.to_dict()
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "lock", "metrics.jsonl", "model.safetensors", "summary.json",
    ]  # fmt: skip
    trained = lines(folder, "train")
    assert [entry["step"] for entry in trained] == [*range(8, 300, 8), 300]
    assert set(trained[0]) == {"kind", "step", "loss", "accuracy", "lr"}
    assert trained[-1]["loss"] < 0.2 < trained[0]["loss"]
    evaluated = lines(folder, "eval")
    assert [(e["step"], e["split"], e["length"]) for e in evaluated] == [
        (100, "validation", 6), (200, "validation", 6), (300, "validation", 6), (300, "test", 6), (300, "test", 12),
    ]  # fmt: skip
    assert set(evaluated[0]) == {"kind", "step", "split", "length", "loss", "accuracy", "macro_accuracy"}
    assert capfd.readouterr() == ("", "")  # nobody watches: not a word


def test_a_finished_run_returns_at_once(finished):
    before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert train(small(), finished) == read_json(finished / "summary.json")
    after = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
    after.pop("lock"), before.pop("lock")
    assert after == before


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, runs):
    train(small(), tmp_path)
    files, folders = (
        ("metrics.jsonl", "model.safetensors"),
        (tmp_path, runs / "finished-0", runs / "finished-1"),
    )
    a, b, c = ([(folder / file).read_bytes() for file in files] for folder in folders)
    assert a == b
    assert all(x != y for x, y in zip(a, c, strict=True))


def test_early_stop(tmp_path):
    summary = train(
        small("task.n=2", "training.steps=2000", "training.lr=0.02", "training.stop_accuracy=0.9"), tmp_path
    )
    assert summary["status"] == "stopped_early"
    assert summary["step"] < 2000
    assert summary["step"] % 20 == 0
    assert summary["best_accuracy"] >= 0.9
    assert set(summary["accuracy"]) == {"6", "12"}


def test_divergence_is_recorded(tmp_path):
    settings = ("training.lr=1e30", "training.gradient_clip=0.0", "mixer.normalization=none")
    summary = train(small(*settings), tmp_path)
    assert summary["status"] == "diverged"
    assert summary["accuracy"] == {}
    assert lines(tmp_path, "train")[-1]["loss"] is None
    assert train(small(*settings), tmp_path) == summary


def test_load_and_evaluate(untouched):
    summary = read_json(untouched / "summary.json")
    config, model = load_run(untouched)
    assert config == small()
    assert not model.training
    scores = evaluate_run(untouched, [6, 12, 24])
    assert {str(length): scores[length]["accuracy"] for length in (6, 12)} == summary["accuracy"]
    assert set(evaluate_run(untouched)) == {6}
    assert evaluate_run(untouched, examples=7)[6].keys() == scores[6].keys()
    with pytest.raises(ValueError, match="length: got 0"):
        evaluate_run(untouched, [0])
    with pytest.raises(ValueError, match="examples: got 0"):
        evaluate_run(untouched, examples=0)


@pytest.mark.parametrize("task", ["compression", "modular_arithmetic", "noisy_recall"])
def test_other_tasks_and_backbones(tmp_path, task):
    config = small(f"task.name={task}", "training.steps=6", "training.eval_lengths=[32]", "mixer.name=hlru",
                   "mixer.order=2", "training.train_examples=32")  # fmt: skip
    summary = train(config, tmp_path)
    assert summary["status"] == "finished"
    assert "32" in summary["accuracy"]
    assert evaluate_run(tmp_path, [32])[32]["accuracy"] == summary["accuracy"]["32"]


def test_bfloat16_autocast_trains(tmp_path):
    summary = train(
        small("training.precision=bfloat16", "task.n=2", "training.steps=60", "training.lr=0.02"), tmp_path
    )
    assert summary["status"] == "finished"
    assert summary["accuracy"]["6"] > 0.6


def test_tensorboard_when_installed(tmp_path):
    pytest.importorskip("tensorboard")
    train(small("training.tensorboard=on", "training.steps=8"), tmp_path)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_missing_tensorboard_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "tensorboard>='):
        train(small("training.tensorboard=on", "mixer.backend=reference"), tmp_path)


def test_a_bar_when_wanted(tmp_path, capfd):
    train(small("training.steps=20"), tmp_path, progress=True)
    shown = capfd.readouterr().err
    for word in ("loss", "accuracy", "validation", "20/20"):
        assert word in shown


def test_weights_are_safetensors_without_pickle(untouched):
    from safetensors.torch import load_file

    weights = load_file(untouched / "model.safetensors")
    _, model = load_run(untouched)
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name])
