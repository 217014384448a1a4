"""GraphSteps steps on a GPU: the same training as launched ones, alone, resumed and side by side."""

from __future__ import annotations

import json

import pytest
import torch

from statemix.training import build_state, build_step, load_run, train, train_concurrently
from statemix.training import loop as loops
from tests.training.small import small
from tests.training.test_cuda_graph import run_to

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore"),  # compilers warn of their own affairs
]

CUDA = ("training.device=cuda", "mixer.num_blocks=8", "model.dim=32")
FLOAT = (*CUDA, "training.precision=float32")


def losses(folder):
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [entry["loss"] for entry in entries]


def assert_near(one, other, **tolerance):
    torch.testing.assert_close(torch.tensor(losses(one)), torch.tensor(losses(other)), **tolerance)


def assert_same(one, other):
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("capture", ["graph", "compiled"])
@pytest.mark.parametrize(("settings", "tolerance"), [
    (FLOAT, {"rtol": 1e-3, "atol": 1e-4}),
    ((*CUDA, "training.precision=bfloat16"), {"rtol": 5e-2, "atol": 2e-2}),
])  # fmt: skip
def test_a_captured_run_is_a_launched_one(tmp_path, capture, settings, tolerance):
    """Evaluations and ragged batches among its steps."""
    for way in ("off", capture):
        summary = train(small(*settings, f"training.capture={way}"), tmp_path / way)
        assert (summary["status"], summary["capture"]) == ("finished", way)
    assert_near(tmp_path / "off", tmp_path / capture, **tolerance)
    load_run(tmp_path / capture)


@pytest.mark.parametrize("capture", ["graph", "compiled"])
def test_the_same_bits_again(tmp_path, capture):
    config = small(*CUDA, f"training.capture={capture}")
    train(config, tmp_path / "a")
    train(config, tmp_path / "b")
    assert_same(tmp_path / "a", tmp_path / "b")


def stopped_at(monkeypatch, where):
    step = loops.Run._step

    def failing(self, most):
        if self.step >= where:
            raise RuntimeError("stopped")
        step(self, most)

    monkeypatch.setattr(loops.Run, "_step", failing)


def test_a_resumed_run_is_one_that_never_stopped(tmp_path, monkeypatch):
    """From a checkpoint within an epoch, at a step at which other graphs are due."""
    config = small(*CUDA, "training.capture=graph")
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stopped_at(patch, 23)
        with pytest.raises(RuntimeError, match="stopped"):
            train(config, tmp_path / "parts")
    assert (tmp_path / "parts" / "checkpoint" / "state.safetensors").exists()
    assert train(config, tmp_path / "parts")["status"] == "finished"
    assert_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("capture", ["graph", "compiled"])
def test_packed_runs_are_single_ones(tmp_path, capture):
    configs = [small(*CUDA, f"training.capture={capture}", f"training.seed={seed}") for seed in range(5)]
    many = train_concurrently(configs, [tmp_path / f"many{k}" for k in range(5)], concurrency=3)
    for k, config in enumerate(configs):
        train(config, tmp_path / f"one{k}")
        assert_same(tmp_path / f"many{k}", tmp_path / f"one{k}")
    assert {one["status"] for one in many} == {"finished"}


@pytest.mark.parametrize("mixer", ["mixer.name=hlru", "mixer.name=bdlru"])
@pytest.mark.parametrize("task", ["compression", "permutation"])
def test_other_models_are_captured(tmp_path, mixer, task):
    order = "mixer.order=3" if "hlru" in mixer else "mixer.block_size=3"
    settings = ("training.device=cuda", mixer, order, f"task.name={task}", "training.steps=20")
    summary = train(small(*settings, "training.capture=compiled", "training.eval_lengths=[]"), tmp_path)
    assert (summary["status"], summary["capture"]) == ("finished", "compiled")


def test_divergence_ends_a_captured_run(tmp_path):
    settings = ("training.lr=1e30", "training.gradient_clip=0.0", "mixer.normalization=none")
    assert train(small(*CUDA, *settings, "training.capture=graph"), tmp_path)["status"] == "diverged"


def test_steps_wait_for_nothing():
    """No step between two looks at the numbers makes the host wait."""
    with torch.cuda.stream(torch.cuda.Stream()):
        state = build_state(small(*CUDA, "training.capture=graph"), torch.device("cuda"))
        run = build_step(state, ("graph",))
        run_to(run, 0, 13)  # every kind of graph is there
        torch.cuda.set_sync_debug_mode("error")
        try:
            run_to(run, 13, 26)
        finally:
            torch.cuda.set_sync_debug_mode("default")
