"""What is seen of a run: on a terminal of any width nothing is cut, in a log there are plain lines."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from statemix.training import progress, train, train_many
from statemix.training.progress import Bar, Log, Quiet, Standing, lines_of, progress_of
from tests.training.small import small


def standing(monkeypatch):
    """Half of a long run, one step a second."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    run = Standing("a run with [a] rather\nlong name", 0, 20_000)
    run.stepped(20)
    now[0] = 9980.0
    run.stepped(10_000)
    run.numbers |= {"loss": 1.23456, "accuracy": 0.5, "validation": 0.25}
    return run


@pytest.mark.parametrize("width", [120, 80, 40, 20])
def test_no_part_is_cut(monkeypatch, width):
    console = Console(width=width)
    lines = [line.plain for line in lines_of(standing(monkeypatch), console.options)]
    told = "  ".join(lines)
    for part in ("a run with [a] rather\\nlong name", "step 10000/20000 (50 %)", "loss 1.235", "accuracy 0.500",
                 "validation 0.250", "2 h 46 min left"):  # fmt: skip
        assert part in told
        assert any(part in line for line in lines)  # in one piece
    if width >= 40:
        assert max(map(len, lines)) <= width
    assert len(lines) <= {120: 2, 80: 2, 40: 4, 20: 6}[width]


def test_the_bar_fills_the_room_that_is_left(monkeypatch):
    run = Standing("r", 0, 10)
    run.stepped(5)
    for encoding, full, rest in (("utf-8", "━", "╺"), ("ascii", "#", "-")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        line = next(iter(lines_of(run, Console(file=stream, width=60).options))).plain
        assert line.endswith(full * 10 + rest * 10)


def test_what_the_first_step_waits_for(monkeypatch):
    now, at_work = [0.0], [True]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "compiling", lambda: at_work[0])
    run = Standing("r", 7, 10)
    assert progress.COMPILING not in list(run.parts())  # it may be over at once
    now[0] = 3.0
    assert progress.COMPILING in list(run.parts())
    at_work[0] = False
    assert progress.COMPILING not in list(run.parts())
    at_work[0] = True
    run.stepped(8)
    assert progress.COMPILING not in list(run.parts())


def test_who_is_told_what(monkeypatch):
    kinds = {}
    for terminal in (True, False):
        monkeypatch.setattr(progress, "is_watched", lambda terminal=terminal: terminal)
        kinds |= {(wanted, terminal): type(progress_of(wanted, "r", 0, 9)) for wanted in (True, False, None)}
    assert kinds == {
        (True, True): Bar, (False, True): Quiet, (None, True): Bar,
        (True, False): Log, (False, False): Quiet, (None, False): Quiet,
    }  # fmt: skip


def test_without_rich(monkeypatch):
    monkeypatch.setattr(progress, "installed", lambda module: False)
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    assert isinstance(progress_of(None, "r", 0, 9), Quiet)
    with pytest.raises(ImportError, match=r'rich is not installed: pip install "rich>='):
        progress_of(True, "r", 0, 9)
    monkeypatch.setattr(progress, "is_watched", lambda: False)
    assert isinstance(progress_of(True, "r", 0, 9), Log)


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
    train_many([small("training.steps=5")], [tmp_path / "other"])
    assert capsys.readouterr() == ("", "")


def test_many_runs_on_a_terminal_and_in_a_log(tmp_path, monkeypatch):
    for terminal in (True, False):
        err = io.StringIO()
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setattr(progress, "is_watched", lambda terminal=terminal: terminal)
        folders = [tmp_path / f"{name}{terminal}" for name in "ab"]
        train_many([small("training.steps=5")] * 2, folders, progress=True)
        last = err.getvalue().strip().splitlines()[-1]
        assert last.startswith("runs: 2/2, 2 finished, ")
