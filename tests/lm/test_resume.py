"""A run that was killed ends with the bits of one that was not; several processes too, also when one of them dies."""

from __future__ import annotations

import math
import shutil
import signal

import pytest

pytest.importorskip("transformers", reason="needs the extra `lm`")
pytest.importorskip("accelerate", reason="needs the extra `lm`")

from statemix.lm import train_language_model
from statemix.lm.callbacks import Progression
from statemix.lm.engine import LanguageModelTrainer
from tests.lm.small import config, kill_at, launch, lines, losses, run, weights

RATIO = 1e-4
"""Losses of runs whose numbers are added in another order agree so far."""

NOT_FINITE = """
from statemix.lm.engine import LanguageModelTrainer as T
plain = T.compute_loss
T.compute_loss = lambda self, *a, **k: plain(self, *a, **k) * (float("nan") if self.state.global_step == 7 else 1.0)
"""


def test_a_killed_run_resumes_exactly(pack, whole, tmp_path):
    assert kill_at(13, launch(pack, tmp_path), tmp_path) == [-signal.SIGKILL]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == [
        "step-00000005", "step-00000010"
    ]  # fmt: skip
    train_language_model(config(pack), tmp_path, progress=False)
    assert [line["step"] for line in lines(tmp_path, "start")] == [0, 10]
    assert losses(tmp_path) == losses(whole) and len(losses(whole)) == 24
    assert lines(tmp_path, "eval") == lines(whole, "eval") and len(lines(whole, "eval")) == 2
    assert weights(tmp_path) == weights(whole)


@pytest.fixture(scope="module")
def two(pack, tmp_path_factory):
    """The folder of a whole run of two processes, by DDP."""
    folder = tmp_path_factory.mktemp("lm") / "two"
    run(pack, folder, processes=2)
    return folder


def test_two_processes_compute_what_one_does(whole, two):
    for step, (loss, norm, rate) in losses(whole).items():
        assert losses(two)[step] == (pytest.approx(loss, rel=RATIO), pytest.approx(norm, rel=1e-3), rate)
    assert [line["tokens"] for line in lines(two, "eval")] == [9 * 32] * 2


@pytest.mark.slow
def test_two_processes_resume_exactly_when_one_of_them_dies(pack, two, tmp_path):
    codes = kill_at(12, launch(pack, tmp_path, processes=2), tmp_path, victim=1)
    assert codes[1] == -signal.SIGKILL and codes[0] != 0
    run(pack, tmp_path, processes=2)
    assert losses(tmp_path) == losses(two) and weights(tmp_path) == weights(two)


def test_shards_compute_what_one_process_does(pack, whole, tmp_path):
    run(pack, tmp_path, "training.sharding=fsdp", "training.steps=3", processes=2)
    assert len(losses(tmp_path)) == 3
    for step, (loss, norm, rate) in losses(tmp_path).items():
        expected = losses(whole)[step]
        assert (loss, norm) == (pytest.approx(expected[0], rel=RATIO), pytest.approx(expected[1], rel=1e-3))
        assert rate == expected[2]


@pytest.mark.slow
def test_shards_resume_exactly_and_on_another_number_of_processes(pack, whole, tmp_path):
    sharded, alone = tmp_path / "sharded", tmp_path / "alone"
    kill_at(12, launch(pack, sharded, "training.sharding=fsdp", processes=2), sharded, victim=0)
    before = losses(sharded)
    assert len(list((sharded / "checkpoints" / "step-00000010").glob("*.distcp"))) == 2
    shutil.copytree(sharded, alone)
    run(pack, sharded, "training.sharding=fsdp", processes=2)
    run(pack, alone)
    for folder in (sharded, alone):
        assert next(line["processes"] for line in lines(folder, "start")) == 2
        assert {step: losses(folder)[step] for step in range(1, 11)} == {
            step: before[step] for step in range(1, 11)
        }
        for step, (loss, _, rate) in losses(whole).items():
            assert (
                losses(folder)[step][0] == pytest.approx(loss, rel=RATIO) and losses(folder)[step][2] == rate
            )


def check_skipped(folder, whole, errors):
    """Step 8 had a gradient that is not finite: it is skipped, and the steps after it go on."""
    assert "step 8: a gradient that is not finite: skipped" in errors
    found = lines(folder, "train")
    assert [line["skipped_steps"] for line in found][7] == [8] and found[7]["loss"] is None
    assert [line["skipped"] for line in found] == [0] * 7 + [1] * 17
    for step, (loss, *_) in losses(whole).items():
        if step <= 7:
            assert losses(folder)[step][0] == pytest.approx(loss, rel=RATIO)
    assert losses(folder)[24][0] < losses(folder)[1][0]


def test_a_step_that_is_not_finite_changes_nothing(pack, whole, tmp_path, monkeypatch, capsys):
    plain = LanguageModelTrainer.compute_loss

    def not_finite(self, *arguments, **options):
        return plain(self, *arguments, **options) * (math.nan if self.state.global_step == 7 else 1.0)

    monkeypatch.setattr(LanguageModelTrainer, "compute_loss", not_finite)
    train_language_model(config(pack), tmp_path, progress=False)
    check_skipped(tmp_path, whole, capsys.readouterr().err)


@pytest.mark.slow
def test_a_sharded_step_that_is_not_finite_changes_nothing(pack, whole, tmp_path):
    errors = run(pack, tmp_path, "training.sharding=fsdp", processes=2, code=NOT_FINITE)
    check_skipped(tmp_path, whole, errors[0])


def test_a_signal_saves_and_the_run_goes_on(pack, whole, tmp_path, monkeypatch):
    plain = Progression.on_step_begin

    def signalled(self, arguments, state, *rest, **options):
        if state.global_step == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, arguments, state, *rest, **options)

    monkeypatch.setattr(Progression, "on_step_begin", signalled)
    assert train_language_model(config(pack), tmp_path, progress=False)["status"] == "interrupted"
    (saved,) = (tmp_path / "checkpoints").glob("step-*")
    assert saved.name == "step-00000004" and not (tmp_path / "model.safetensors").exists()
    monkeypatch.undo()
    assert train_language_model(config(pack), tmp_path, progress=False)["status"] == "finished"
    assert losses(tmp_path) == losses(whole) and weights(tmp_path) == weights(whole)
