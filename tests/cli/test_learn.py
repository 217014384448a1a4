"""`statemix learn` from a file to a run that the other commands read."""

from __future__ import annotations

import pytest

from statemix.training import learning

PARITY = """
start = "even"
accepting = ["odd"]
table.even = {0 = "even", 1 = "odd"}
table.odd = {0 = "odd", 1 = "even"}
"""
SMALL = "--dim 16 --num-blocks 2 --lr 0.01"


@pytest.fixture
def parity(tmp_path):
    (tmp_path / "parity.toml").write_text(PARITY)
    return f"learn parity.toml --out run {SMALL}"


def test_a_file_becomes_a_run(statemix, parity, tmp_path):
    done = statemix(parity)
    assert done.code == 0, done.err
    assert "equal to the automaton for words of every length" in done.out and done.out.endswith("run: run\n")
    (tmp_path / "parity.toml").rename(tmp_path / "moved.toml")
    assert statemix("automaton run").out in done.out
    assert "100.0 %" in statemix("eval run --lengths 16,300").out
    again = statemix(parity.replace("parity.toml", "moved.toml"))
    assert again.code == 0 and again.out == done.out
    other = statemix(parity.replace("parity.toml", "moved.toml") + " --seed 1")
    assert other.code == 1 and "run holds another run: training.seed" in other.err


def test_a_run_that_is_not_proved(statemix, parity):
    done = statemix(f"{parity} --steps 1")
    assert done.code == 1 and "run: not proved in 1 steps: the model errs after" in done.err
    assert statemix("automaton run").code == 1


def test_an_interrupted_run_leaves_no_file(statemix, parity, tmp_path, monkeypatch):
    def stop(self, step):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(learning.Learner, "step", stop)
        assert statemix(parity).code == 130
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    assert statemix(parity).code == 0


def test_bad_input(statemix, parity, tmp_path):
    assert statemix("learn nowhere.toml --out run").code == 2
    assert statemix("learn parity.toml").code == 2
    wrong = statemix(f"{parity} --block-size 0")
    assert wrong.code == 2 and "block_size: got 0, expected" in wrong.err
    assert not (tmp_path / "run").exists()
    (tmp_path / "taken").touch()
    taken = statemix("learn parity.toml --out taken")
    assert taken.code == 1 and "taken is a file, expected a folder" in taken.err
