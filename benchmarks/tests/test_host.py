"""The bench of the host's own time, on the CPU."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import host, report
from benchmarks.measure import Setup


@pytest.fixture(scope="module")
def record():
    setup = Setup(torch.device("cpu"), "float32", 2)
    rows = [{"layer": name, "m": 2, **host.measure(name, 2, setup)} for name in host.MODELS]
    return json.loads(json.dumps(host.new_record(setup) | {"layers": rows}))


def test_every_call_is_timed(record):
    calls = set(record["layers"][0]["us"])
    assert {"scan", "scan, gradient", "layer", "layer, gradient", "step", "products, gradient"} <= calls
    for row in record["layers"]:
        assert set(row["us"]) == calls
        for times in row["us"].values():
            assert 0 < times["min"] <= times["median"] <= times["upper_quartile"]


def test_its_table(record):
    record["layers"].append({"layer": "bdlru", "m": 4, "failed": "no GPU"})
    ((title, _, frame),) = report.make_tables({"host.json": record})
    assert title == "The host's time"
    assert list(frame["model"]) == ["BD-LRU m = 2", "H-LRU m = 2", "BD-LRU m = 4"]
    assert list(frame["failed"]) == ["", "", "failed: no GPU"]


def test_calls_do_what_they_say():
    """Gradients of the layer and of the products are taken and put away again."""
    setup = Setup(torch.device("cpu"), "float32", 1)
    calls = host.scan_calls("hlru", 2, setup) | host.layer_calls("bdlru", 4, setup)
    for name, call in calls.items():
        call()
        if name == "scan":
            assert torch.is_grad_enabled()
    states, final = calls["layer"]()
    assert states.requires_grad and final.requires_grad
