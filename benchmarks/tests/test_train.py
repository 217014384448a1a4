"""The benchmark of training steps, at tiny sizes on the CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import train

SETTINGS = (
    "task.name=cyclic", "task.n=3", "task.length=6", "mixer.name=bdlru", "mixer.block_size=3", "mixer.num_blocks=4",
    "model.dim=8", "model.depth=1", "training.batch_size=16", "training.warmup=5", "training.train_examples=200",
    "training.eval_examples=40", "training.eval_lengths=[12]",
)  # fmt: skip
SETTING = train.Setting(SETTINGS, "mad-bdlru", torch.device("cpu"), 4, 3)


def test_record():
    record = train.new_record(SETTING)
    for kind, row in train.run(SETTING, [1, 3]):
        record[kind].append(row)
    read = json.loads(json.dumps(record))
    assert {"bench", "what", "command", "date", "device", "versions", "config", "modes", "packed"} <= set(
        read
    )
    assert read["config"]["task"]["name"] == "cyclic"
    (way,) = read["modes"]
    assert way["mode"] == "off"
    assert way["tokens_per_s"] == pytest.approx(1000 * 16 * 6 / way["ms"]["median"])
    assert [row["concurrent"] for row in read["packed"]] == [1, 3]
    for row in read["packed"]:
        assert row["steps_per_s"] == pytest.approx(1000 / row["ms_per_step"]["median"])


def test_what_fails_is_a_row(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no memory")

    monkeypatch.setattr(train, "measure_concurrent", broken)
    rows = dict(train.run(SETTING, [2]))
    assert rows["packed"] == {"concurrent": 2, "failed": "RuntimeError: no memory"}
    assert "failed" not in rows["modes"]


def test_a_runner_trains():
    runner = train.Runner(train.make_config(SETTING, 0, "off"), ("off",), torch.device("cpu"))
    runner.advance(5)
    runner.advance(2)
    assert runner.step == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_are_counted():
    runner = train.Runner(
        train.make_config(SETTING._replace(device=torch.device("cuda")), 0, "graph"),
        ("graph",),
        torch.device("cuda"),
    )
    counted = train.count_kernels(lambda: runner.advance(5), 5)
    assert counted["per_step"] > 20
    assert counted["us_per_step"] > 0
