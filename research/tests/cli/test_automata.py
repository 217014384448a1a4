"""`statemix-research automata` and `diagnosis`."""

import json

import pytest
from statemix_research.automata import experiments as lists


@pytest.fixture
def small(monkeypatch):
    settings = {"dim": 16, "num_blocks": 4, "block_size": 3, "batch_size": 8, "length": 6, "steps": 4}
    one = lists.Experiment("a small list", lists._group("permutation", 3), 2, [("base",)], settings)
    monkeypatch.setitem(lists.EXPERIMENTS, "small", one)


def test_a_list_is_trained_and_shown(research, small, tmp_path):
    done = research("automata small --device cpu --out .")
    assert done.code == 0
    assert "0 of 2" in done.out
    rows = [json.loads(line) for line in (tmp_path / "small.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1]
    shown = research("automata --out .")
    assert "a small list" in shown.out


def test_a_list_leaves_in_time_and_goes_on(research, small, tmp_path, monkeypatch):
    monkeypatch.setitem(lists.EXPERIMENTS["small"].settings, "steps", 120)  # checks are 50 steps apart
    left = research("automata small --device cpu --out . --time-limit 1e-6")
    assert left.code == 0
    assert "small: the time is up at step 0: 0 of 2 solved" in left.out
    assert "0 of 2" in research("automata small --device cpu --out .").out
    assert sorted(path.name for path in tmp_path.glob("small*")) == ["small.jsonl"]
    assert "time-limit: got -1, expected minutes above 0" in research("automata small --time-limit -1").err


def test_a_diagnosis_has_a_picture(research, small, tmp_path):
    done = research("diagnosis small --seeds 2 --steps 60 --out runs.svg")
    assert done.code == 0
    assert "permuting" in done.out
    assert (tmp_path / "runs.svg").stat().st_size > 1000


def test_unknown_lists(research):
    done = research("automata none --device cpu --out .")
    assert done.code == 2
    assert "experiment: got 'none'" in done.err
