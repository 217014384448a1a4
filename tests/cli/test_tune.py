"""`statemix tune`, on a GPU made up, and what it says without one."""

from __future__ import annotations

import json

import pytest
import torch

from statemix.cli import tuning
from statemix.ops import launch as table
from statemix.ops import triton
from statemix.ops.launch import LaunchKey
from tests.cli.test_tuning import QUICK, Machine

GPU = "made up"


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Where the user's table would lie."""
    path = tmp_path / "launch.json"
    monkeypatch.setenv("STATEMIX_LAUNCH_TABLE", str(path))
    table.user_table.cache_clear()
    yield path
    table.user_table.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """A GPU on which one launch is twice as fast as all others."""
    made = Machine({QUICK: 0.5})
    monkeypatch.setattr(tuning, "check_gpu", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPU)
    monkeypatch.setattr(tuning, "Gpu", lambda shape, *_: made)
    return made


def test_the_best_are_shown_and_kept(statemix, machine, path):
    done = statemix("tune --shapes bdlru:4 --sizes 2x64x64")
    assert done.code == 0, done.err
    assert "2.00×" in done.out
    assert done.out.splitlines()[-1] == f"{path}: 2 entries for {GPU}"
    assert list(json.loads(path.read_text())["devices"][GPU].values()) == [list(QUICK)] * 2
    listed = statemix("tune --list")
    assert listed.out.count(GPU) == 2


def test_a_dry_run_writes_nothing(statemix, machine, path):
    done = statemix("tune --shapes bdlru:4 --sizes 2x64x64 --dry-run")
    assert done.code == 0
    assert "nothing was written" in done.out
    assert not path.exists()


def test_the_list_needs_no_gpu(statemix):
    done = statemix("tune --list")
    assert done.code == 0
    assert "compute capability 9.0" in done.out
    assert "no entries" in done.out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(statemix):
    done = statemix("tune")
    assert (done.code, done.out) == (2, "")
    assert "no CUDA device is there" in done.err


def test_without_triton(statemix, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(triton, "INSTALLED", False)
    done = statemix("tune")
    assert (done.code, done.out) == (2, "")
    assert "pip install triton" in done.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--shapes bdlru", "shapes: got 'bdlru'"),
        ("--sizes 8x2048", "sizes: got '8x2048'"),
        ("--dtype float64", "'float64' is not one of 'bfloat16', "),
        ("--repeats 0", "repeats: got 0"),
        ("--threads -1", "threads: got -1"),
    ],
)
def test_bad_input(statemix, line, words):
    done = statemix(f"tune {line}")
    assert (done.code, done.out) == (2, "")
    assert words in done.err


@pytest.mark.parametrize("line", ["tune", "tune --list"])
def test_a_damaged_table_is_told_before_any_work(statemix, machine, path, line):
    path.write_text("{")
    done = statemix(line)
    assert done.code == 2
    assert f"{path}: not a launch table" in done.err
    assert machine.compiled == []


def test_the_launch_of_a_thread_replaces_the_table(path):
    pytest.importorskip("triton")
    key, gpu = LaunchKey("bdlru", "forward", 4, 2, False), ("NVIDIA H200", (9, 0))
    path.write_text(json.dumps({"devices": {gpu[0]: {str(key): None}}}))
    with tuning.forced("forward", QUICK, gpu[1]) as looked_up:
        assert table.choose(key, *gpu) == QUICK
        back = key._replace(direction="backward")
        assert table.choose(back, *gpu) == table.default_launch(back, gpu[1])
    assert looked_up == [key, back]
    assert table.choose(key, *gpu) is None
