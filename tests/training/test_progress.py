"""What is seen of a run: a bar on a terminal, plain lines in a log, or nothing."""

from __future__ import annotations

import io
import sys

import pytest

from statemix.training import progress, train, train_concurrently
from statemix.training.progress import Progress
from tests.training.small import small


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_what_is_said(now):
    run = Progress(False, "a run with [a] rather\nlong name, step", 0, 20_000)
    run.tell(20)
    now[0] = 9980.0
    run.tell(10_000, loss=1.23456, accuracy=0.5)
    run.tell(10_000, validation=0.25)
    assert str(run) == (
        "a run with [a] rather\\nlong name, step 10000/20000 (50 %), loss 1.235, accuracy 0.500, validation 0.250, "
        "2 h 46 min left"
    )


@pytest.mark.parametrize("width", [120, 40, 20])
def test_no_part_is_cut_on_a_terminal(monkeypatch, width):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with Progress(True, "a run with [a] long name, step", 0, 20_000) as run:
        run.tell(10_000, loss=1.23456, accuracy=0.5)
    shown = "".join(err.getvalue().split())
    for part in ("[a]long", "10000/20000", "loss1.235" if width > 20 else "1.235", "0.500"):
        assert part in shown


def test_what_the_first_step_waits_for(monkeypatch, now):
    at_work = [True]
    monkeypatch.setattr(progress, "compiling", lambda: at_work[0])
    run = Progress(False, "r", 7, 10)
    assert progress.COMPILING not in str(run)  # it may be over at once
    now[0] = 3.0
    assert progress.COMPILING in str(run)
    at_work[0] = False
    assert progress.COMPILING not in str(run)
    at_work[0] = True
    run.tell(8)
    assert progress.COMPILING not in str(run)


def test_where_it_is_shown(monkeypatch):
    kinds = {}
    for terminal in (True, False):
        monkeypatch.setattr(progress, "is_watched", lambda terminal=terminal: terminal)
        for wanted in (True, False, None):
            run = Progress(wanted, "r", 0, 9)
            kinds[wanted, terminal] = "bar" if run._bar else "lines" if run._lines else "nothing"
    assert kinds == {
        (True, True): "bar", (False, True): "nothing", (None, True): "bar",
        (True, False): "lines", (False, False): "nothing", (None, False): "nothing",
    }  # fmt: skip


def test_without_rich(monkeypatch):
    monkeypatch.setattr(progress, "installed", lambda module: False)
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    assert Progress(None, "r", 0, 9)._bar is None
    with pytest.raises(ImportError, match=r'rich is not installed: pip install "rich>='):
        Progress(True, "r", 0, 9)
    monkeypatch.setattr(progress, "is_watched", lambda: False)
    assert Progress(True, "r", 0, 9)._lines is not None


def test_a_log_of_a_run(tmp_path, capsys):
    """A line at every tenth, with the numbers; no carriage return, no escape."""
    train(small("training.steps=40", "training.log_every=2", 'name="[b]a"'), tmp_path / "run", progress=True)
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert "\r" not in err and "\x1b" not in err
    assert [line.partition(", loss")[0] for line in lines] == [
        f"[b]a, step {k}/40 ({100 * k // 40} %)" for k in range(4, 41, 4)
    ]
    assert all(", accuracy 0." in line for line in lines)
    assert all(" left" in line for line in lines[1:-1])


def test_nothing_is_said_unless_wanted(tmp_path, capsys):
    train(small("training.steps=5"), tmp_path / "run")
    train_concurrently([small("training.steps=5")], [tmp_path / "other"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_concurrent_runs(tmp_path, monkeypatch, terminal):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(progress, "is_watched", lambda: terminal)
    folders = [tmp_path / name for name in "ab"]
    train_concurrently([small("training.steps=5")] * 2, folders, progress=True)
    assert "runs 2/2 (100 %), 2 finished" in err.getvalue()
