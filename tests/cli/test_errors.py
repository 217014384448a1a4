"""What a person is told when something is wrong, and the exit codes."""

from __future__ import annotations

import sys

import pytest

import statemix.cli
from statemix.cli import app, errors, selfcheck
from tests.cli.conftest import TINY
from tests.training.small import python

BAD_INPUT = {
    "frob": "No such command 'frob'",
    "tasks show nope": "task: got 'nope', expected one of",
    "tasks show parity length": "setting: got 'length', expected key=value",
    "tasks show parity length=x": "parity.length: got 'x'",
    "tasks show parity --count -1": "count: got -1",
    "train nope": "preset: got 'nope', expected one of demo-diagonal",
    "train demo-bdlru mixer.block_size=0": "block_size: got 0",
    "train demo-bdlru training.stepz=3": "training.stepz",
    "train demo-bdlru --config none.toml": "none.toml: No such file",
    "demo --seeds a": "seeds: got 'a', expected whole numbers",
    "eval": "Missing argument 'FOLDER'",
    "report": "Missing argument",
}


@pytest.mark.parametrize("line", BAD_INPUT)
def test_bad_input(statemix, line):
    done = statemix(line)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert BAD_INPUT[line] in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("bench scan --device cpu", "python -m benchmarks scan --device cpu"),
        ("experiment run fig3 'only=a b'", "statemix-research run fig3 'only=a b'"),
        ("rivals", "statemix-research baselines"),
    ],
)
def test_a_command_that_moved_is_named_whole(statemix, line, now):
    done = statemix(line)
    assert (done.code, done.out) == (2, "")
    assert f"is now {now} (" in done.err and done.err.count("\n") == 1


def test_a_folder_that_is_no_run(statemix, tmp_path):
    done = statemix(f"eval {tmp_path}/none")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize("line", ["--debug tasks show nope", "tasks show nope --debug"])
def test_debug_shows_the_traceback(statemix, line):
    done = statemix(line)
    assert done.code == 2
    assert "Traceback" in done.err
    assert "error: task: got 'nope'" in done.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("a:\n  b"), 2, "error: a: b"),
        (TypeError("t"), 2, "error: t"),
        (ModuleNotFoundError("no", name="jinja2.x"), 1, 'error: jinja2 is not installed: pip install "jinja2>='),
        (ImportError("rich is not installed: how"), 1, "error: rich is not installed: how"),
        (PermissionError(13, "Permission denied", "x/y"), 1, "error: x/y: Permission denied"),
        (errors.Failure("worse"), 1, "error: worse"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (errors.Interrupted("saved at step 3"), 130, "interrupted: saved at step 3"),
    ],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_exceptions(statemix, monkeypatch, error, code, words):
    def fail():
        raise error

    monkeypatch.setitem(app.COMMANDS, "doctor", (fail, "statemix doctor"))
    done = statemix("doctor")
    assert done.code == code
    assert done.err.startswith(words)
    assert "Traceback" not in done.err


def test_a_defect_keeps_its_traceback(statemix, monkeypatch):
    def fail():
        raise AssertionError("a defect")

    monkeypatch.setitem(app.COMMANDS, "doctor", (fail, "statemix doctor"))
    with pytest.raises(AssertionError, match="a defect"):
        statemix("doctor")


def test_doctor_finds_a_wrong_backend(statemix, monkeypatch):
    right = selfcheck.checks

    def off(device):
        return (c._replace(error=float("nan")) if c.recurrence == "hlru" else c for c in right(device))

    monkeypatch.setattr(selfcheck, "checks", off)
    done = statemix("doctor")
    assert done.code == 1
    assert "WRONG" in done.out
    assert "checks failed" in done.err


@pytest.mark.parametrize("name", statemix.cli.NEEDED)
def test_without_the_extra(monkeypatch, capsys, name):
    monkeypatch.setattr(statemix.cli, "installed", lambda module: module != name)
    monkeypatch.setattr(sys, "argv", ["statemix", "tasks"])
    assert statemix.cli.main() == 1
    err = capsys.readouterr().err
    assert err.startswith(f'error: the command needs {name}: pip install "{name}>=')
    assert 'pip install -e ".[train]"' in err and err.count("\n") == 1


INTERRUPTED = """
import threading, time
from pathlib import Path
from statemix.cli import main
metrics = Path(sys.argv[-1], "metrics.jsonl")
def interrupt():
    while not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
print("exit", main())
print("exit", main())
"""


def test_ctrl_c_saves_and_the_same_command_resumes(tmp_path):
    """In a process of its own: SIGINT -> 130 with a checkpoint; again -> the end."""
    settings = [word for word in TINY if not word.startswith("training.steps")]
    settings += ["training.steps=300", "training.log_every=1"]
    done = python(INTERRUPTED, "train", "demo-hlru", *settings, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "interrupted: saved at step" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.startswith("exit 130\n") and done.stdout.endswith("exit 0\n")
    assert "300" in done.stdout
