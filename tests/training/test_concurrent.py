"""Many runs side by side: each as if it were alone, and none harmed by another."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest

from statemix.training import RunError, RunFolder, load_run, train, train_concurrently
from statemix.training import loop as loops
from tests.training.small import assert_same, python, small


def test_side_by_side_is_as_one_by_one(tmp_path):
    """Runs of different length, layer and task; fewer places than runs; one stops early."""
    settings = [
        (), ("training.seed=1", "training.steps=30"), ("mixer.name=hlru", "mixer.order=2"),
        ("task.n=2", "training.lr=0.02", "training.steps=400", "training.stop_accuracy=0.8"),
        ("training.lr=1e30", "training.gradient_clip=0.0", "mixer.normalization=none"),
    ]  # fmt: skip
    configs = [small(*some) for some in settings]
    many = train_concurrently(configs, [tmp_path / f"many{k}" for k in range(5)], concurrency=2)
    for k, config in enumerate(configs):
        alone = train(config, tmp_path / f"one{k}")
        assert_same(tmp_path / f"many{k}", tmp_path / f"one{k}")
        assert many[k] | {"seconds": 0} == alone | {"seconds": 0}
    assert [one["status"] for one in many] == ["finished"] * 3 + ["stopped_early", "diverged"]
    assert train_concurrently(configs, [tmp_path / f"many{k}" for k in range(5)]) == many  # finished: at once


def test_they_take_turns_and_one_that_ends_makes_room(tmp_path, monkeypatch):
    seen, step = [], loops.Run._step

    def watched(self, most):
        step(self, most)
        if not seen or seen[-1] != self.folder.path.name:
            seen.append(self.folder.path.name)

    monkeypatch.setattr(loops.Run, "_step", watched)
    configs = [small(f"training.steps={steps}") for steps in (8, 24, 8)]
    train_concurrently(configs, [tmp_path / name for name in "abc"], concurrency=2)
    assert seen[:3] == ["a", "b", "c"] or seen[:4] == ["a", "b", "c", "b"]
    assert seen.count("b") >= 2
    assert seen.index("c") > seen.index("a")


def test_one_that_fails_does_not_take_the_others_down(tmp_path, monkeypatch):
    step = loops.Run._step

    def failing(self, most):
        if self.folder.path.name == "bad" and self.step == 12:
            raise RuntimeError("out of\nmemory")
        step(self, most)

    monkeypatch.setattr(loops.Run, "_step", failing)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").write_text("mine")
    folders = [tmp_path / name for name in ("good", "bad", "strange")]
    good, bad, strange = train_concurrently([small()] * 3, folders)
    assert good["status"] == "finished"
    assert (bad["status"], bad["error"]) == ("failed", "RuntimeError: out of memory")
    assert "in failing" in bad["traceback"]
    told = (tmp_path / "bad" / "failure.txt").read_text()
    assert "in failing" in told and bad["traceback"].endswith(told.partition("in failing")[2])
    assert strange["error"].startswith("RunError:")
    assert [path.name for path in (tmp_path / "strange").iterdir()] == ["file"]
    monkeypatch.setattr(loops.Run, "_step", step)
    assert (
        train_concurrently([small()], [tmp_path / "bad"])[0]["status"] == "finished"
    )  # from its last checkpoint
    assert not (tmp_path / "bad" / "failure.txt").exists()
    assert_same(tmp_path / "bad", tmp_path / "good")


def test_asked_to_stop_all_are_saved_and_go_on(tmp_path, monkeypatch, runs):
    step = loops.Run._step

    def asking(self, most):
        step(self, most)
        if self.folder.path.name == "b" and self.step == 23:
            os.kill(os.getpid(), signal.SIGTERM)

    folders = [tmp_path / name for name in "abc"]
    configs = [small(f"training.seed={seed}") for seed in range(3)]
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(loops.Run, "_step", asking)
        stopped = train_concurrently(configs, folders, concurrency=2)
    assert signal.getsignal(signal.SIGTERM) == before
    assert [one["status"] for one in stopped] == ["interrupted", "interrupted", "waiting"]
    assert stopped[1]["step"] == 23
    assert not (tmp_path / "c").exists()
    resumed = train_concurrently(configs, folders)
    assert [one["status"] for one in resumed] == ["finished"] * 3
    for k in range(2):
        assert_same(folders[k], runs / f"finished-{k}")


def test_a_second_signal_leaves_at_once_and_unlocks(tmp_path, monkeypatch):
    step = loops.Run._step

    def impatient(self, most):
        step(self, most)
        if self.step == 23:
            raise KeyboardInterrupt

    folders = [tmp_path / name for name in "ab"]
    with monkeypatch.context() as patch:
        patch.setattr(loops.Run, "_step", impatient)
        with pytest.raises(KeyboardInterrupt):
            train_concurrently([small()] * 2, folders)
    assert [one["status"] for one in train_concurrently([small()] * 2, folders)] == ["finished"] * 2
    assert_same(*folders)


def test_killed_it_goes_on(tmp_path, untouched):
    code = """
step = loop.Run._step
def deadly(self, most):
    step(self, most)
    if self.step == 33:
        os.kill(os.getpid(), signal.SIGKILL)
loop.Run._step = deadly
from statemix.training import train_concurrently
config = resolve_config(overrides=settings)
train_concurrently([config] * 2, [sys.argv[1] + "/a", sys.argv[1] + "/b"])
"""
    assert python(code, tmp_path).returncode == -signal.SIGKILL
    train_concurrently([small()] * 2, [tmp_path / "a", tmp_path / "b"])
    assert_same(tmp_path / "a", untouched)
    assert_same(tmp_path / "b", untouched)


def test_what_is_refused_before_any_work(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(ValueError, match="folders: got 1, expected one for each of 2 configurations"):
        train_concurrently([small()] * 2, [a])
    with pytest.raises(ValueError, match=r"folders: got .*a twice"):
        train_concurrently([small()] * 2, [a, tmp_path / "." / "a"])
    with pytest.raises(ValueError, match="concurrency: got 0"):
        train_concurrently([small()], [a], concurrency=0)
    with pytest.raises(ValueError, match=r"configs\[1\]: training.capture: 'graph' needs a CUDA device"):
        train_concurrently([small(), small("training.capture=graph")], [a, b])
    assert not list(tmp_path.iterdir())
    assert train_concurrently([], []) == []


def test_a_locked_folder_fails_alone(tmp_path):
    (tmp_path / "a").mkdir()
    with RunFolder(tmp_path / "a").locked():
        taken, free = train_concurrently([small()] * 2, [tmp_path / "a", tmp_path / "b"])
    assert "is being trained by another process" in taken["error"]
    assert free["status"] == "finished"
    with pytest.raises(RunError):
        load_run(tmp_path / "a")


def test_outside_the_main_thread(tmp_path):
    done = []
    thread = threading.Thread(
        target=lambda: done.extend(train_concurrently([small("training.steps=8")], [tmp_path]))
    )
    thread.start()
    thread.join()
    assert done[0]["status"] == "finished"


def test_a_bar_when_wanted(tmp_path, capfd):
    folders = [tmp_path / name for name in "ab"]
    train_concurrently([small("training.steps=8")] * 2, folders, progress=True)
    shown = capfd.readouterr().err
    assert "2/2" in shown
    assert "2 finished" in shown
    assert json.loads((folders[0] / "summary.json").read_text())["capture"] == "off"
