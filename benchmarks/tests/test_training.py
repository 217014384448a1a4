"""The bench of training steps, at tiny sizes on the CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import training
from tests.training.small import SETTINGS

SETTING = training.Setting(
    tuple(one for one in SETTINGS if "device" not in one), "mad-bdlru", torch.device("cpu"), 4, 3
)


def test_record(monkeypatch):
    rows = {"ways": [], "packed": []}
    for kind, row in training.run(SETTING, [1, 3]):
        rows[kind].append(row)
    read = json.loads(json.dumps(training.record(rows, setting=SETTING, command="statemix bench train")))
    assert {"bench", "what", "command", "date", "device", "versions", "config", "ways", "packed"} <= set(read)
    assert read["config"]["task"]["name"] == "cyclic"
    (way,) = read["ways"]
    assert way["capture"] == "off"
    assert way["weights"]["step"] == 4 + 4 * 3
    assert len(way["weights"]["fingerprint"]) == 12
    assert way["tokens_per_s"] == pytest.approx(1000 * 16 * 6 / way["ms"]["median"])
    assert [row["side_by_side"] for row in read["packed"]] == [1, 3]
    for row in read["packed"]:
        assert row["steps_per_s"] == pytest.approx(1000 / row["ms_per_step"]["median"])
        assert row["runs_in_ten_minutes"] == pytest.approx(600 * row["steps_per_s"] / 20_000)


def test_what_fails_is_a_row(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(training, "measure_packed", broken)
    rows = dict(training.run(SETTING, [2]))
    assert rows["packed"] == {"side_by_side": 2, "failed": "RuntimeError: no memory"}
    assert "failed" not in rows["ways"]


def test_a_runner_trains():
    runner = training.Runner(training.config_of(SETTING, 0, "off"), ("off",), torch.device("cpu"))
    runner.advance(5)
    runner.advance(2)
    assert runner.step == 7


def test_equal_weights_have_equal_fingerprints():
    one, again, other = (
        training.Runner(training.config_of(SETTING, seed, "off"), ("off",), torch.device("cpu"))
        for seed in (0, 0, 1)
    )
    before = one.fingerprint()
    for runner in (one, again, other):
        runner.advance(3)
    assert before != one.fingerprint() == again.fingerprint() != other.fingerprint()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_are_counted():
    runner = training.Runner(
        training.config_of(SETTING._replace(device=torch.device("cuda")), 0, "graph"),
        ("graph",),
        torch.device("cuda"),
    )
    counted = training.kernels(lambda: runner.advance(5), 5)
    assert counted["per_step"] > 20
    assert counted["us_per_step"] > 0
    assert sum(one["us_per_step"] for one in counted["longest"]) <= counted["us_per_step"] * 1.001
