"""Killed with SIGKILL anywhere, and asked to stop: the resumed run is, bit for bit, the one that was never touched."""

from __future__ import annotations

import json
import random
import signal

import pytest

from statemix.training import RunError, train
from tests.training.small import assert_same, python, small

KILLED = """
points = [int(x) for x in sys.argv[2].split(",")]
done = int(sys.argv[3])
step = loop.Run._step
def deadly(self, *batch):
    step(self, *batch)
    if self.step == points[done]:
        os.kill(os.getpid(), signal.SIGKILL)
loop.Run._step = deadly
train(resolve_config(overrides=settings), sys.argv[1])
"""

KILLED_WHILE_SAVING = """
from pathlib import Path
moment, wanted = sys.argv[2], sys.argv[3]
replace = Path.replace
def deadly(self, target):
    if Path(target).name != wanted:
        return replace(self, target)
    if moment == "after":
        replace(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = deadly
train(resolve_config(overrides=settings), sys.argv[1])
"""


def assert_untouched(folder, untouched):
    assert_same(folder, untouched)
    assert not list(folder.glob(".*.tmp"))
    assert not (folder / "checkpoint").exists()


def test_sigkill_at_random_steps(tmp_path, untouched):
    points = sorted(random.Random(0).sample(range(1, 61), 2))
    for done in range(len(points)):
        result = python(KILLED, tmp_path, ",".join(map(str, points)), str(done))
        assert result.returncode == -signal.SIGKILL, result.stderr
    assert train(small(), tmp_path)["status"] == "finished"
    assert_untouched(tmp_path, untouched)


@pytest.mark.parametrize("name", ["state.safetensors", "model.safetensors", "summary.json"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_sigkill_around_a_rename(tmp_path, untouched, moment, name):
    result = python(KILLED_WHILE_SAVING, tmp_path, moment, name)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert train(small(), tmp_path)["status"] == "finished"
    assert_untouched(tmp_path, untouched)


ASKED = """
step = loop.Run._step
def asking(self, *batch):
    step(self, *batch)
    if self.step == 23:
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
loop.Run._step = asking
before = signal.getsignal(signal.SIGTERM)
summary = train(resolve_config(overrides=settings), sys.argv[1])
assert signal.getsignal(signal.SIGTERM) == before
print(summary["status"], summary["step"])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_asked_to_stop_it_saves_and_leaves(tmp_path, untouched, name):
    result = python(ASKED, tmp_path, name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["interrupted", "23"]
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "checkpoint" / "state.safetensors").exists()
    assert train(small(), tmp_path)["status"] == "finished"
    assert_untouched(tmp_path, untouched)


def test_a_closing_terminal_sends_two(tmp_path, untouched):
    """The shell and the system each send a SIGHUP; the second does not kill what the first has saving."""
    twice = "os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGHUP)"
    result = python(ASKED.replace("os.kill(os.getpid(), getattr(signal, sys.argv[2]))", twice), tmp_path)
    assert result.stdout.split() == ["interrupted", "23"], result.stderr
    assert train(small(), tmp_path)["status"] == "finished"
    assert_untouched(tmp_path, untouched)


def test_under_nohup_a_closing_terminal_changes_nothing(tmp_path, untouched):
    result = python("signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + ASKED, tmp_path, "SIGHUP")
    assert result.stdout.split() == ["finished", "60"], result.stderr
    assert_untouched(tmp_path, untouched)


@pytest.mark.gpu
def test_a_run_on_a_gpu_goes_on(tmp_path):
    code = ASKED.replace("overrides=settings", "overrides=[*settings, 'training.device=cuda']")
    result = python(code, tmp_path, "SIGTERM")
    assert result.stdout.split() == ["interrupted", "23"], result.stderr
    assert train(small("training.device=cuda"), tmp_path)["status"] == "finished"


def test_two_processes_do_not_share_a_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="is being trained by another process"):
            train(small(), tmp_path / "run")
    assert train(small(), tmp_path / "run")["status"] == "finished"
