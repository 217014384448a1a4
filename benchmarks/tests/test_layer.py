"""The benches of whole layers and of single steps, at tiny sizes on the CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from statemix_research.baselines.passes import zero_gradients
from torch import nn

from benchmarks import decode, layer
from benchmarks.app import PROGRAM
from benchmarks.measure import Setup
from statemix.analysis import parameters
from statemix.nn import BDLRU

CPU = torch.device("cpu")
SETUP, SIZES = Setup(CPU, "float32", 3), layer.Sizes(32, 2, 8)
PRESET = layer.PRESETS["layer"]


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("wanted", [7_345_152, 33_000_000])
def test_bdlru_has_the_parameters_wanted(m, wanted):
    with torch.device("meta"):
        one = BDLRU(1024, block_size=m, num_blocks=layer.blocks_for(1024, m, wanted))
    assert abs(parameters(one) / wanted - 1) < layer.SLACK / 2


def test_blocks_are_round_where_they_can_be():
    assert layer.blocks_for(1024, 4, 33_000_000) == 1152
    assert layer.blocks_for(32, 16, 40_000) == 4


@pytest.mark.parametrize("wanted", [7_345_152, 33_000_000])
def test_the_lstm_has_the_parameters_wanted(wanted):
    baseline = layer.BASELINES["LSTM"]
    with torch.device("meta"):
        one = baseline.build(1024, baseline.units(1024, wanted))
    assert abs(parameters(one) / wanted - 1) < 0.01


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("DeltaNet", 14),
        ("GatedDeltaNet", 7),
        ("GatedDeltaProduct", 5),
        ("RWKV7", 20),
        ("HGRN", 28),
        ("GLA", 7),
    ],
)
def test_sizes_of_baselines(name, units):
    """As counted on the real layers: within 3 % of 7 345 152 parameters."""
    assert layer.BASELINES[name].units(1024, 7_345_152) == units


@pytest.fixture(scope="module")
def bdlru():
    return {"name": "BDLRU m=4", "m": 4, **layer.measure(4, None, SIZES, SETUP)}


def test_record_of_layers(monkeypatch, bdlru):
    monkeypatch.setattr("benchmarks.measure.installed", lambda name: name == "torch")
    rows = [bdlru]
    others = {name: layer.run_baseline(name, bdlru, rows, SIZES, SETUP) for name in PRESET.baselines}
    record = layer.new_record("layer", SIZES, SETUP) | {"layers": rows, "baselines": others}
    read = json.loads(json.dumps(record))
    assert {
        "bench",
        "command",
        "date",
        "device",
        "versions",
        "preset",
        "dim",
        "batch",
        "length",
        "dtype",
    } <= set(read)
    row = read["layers"][0]
    assert row["parameters"] == parameters(BDLRU(32, block_size=4))
    ratio = row["both"]["ms"]["median"] / row["products"]["both"]["ms"]["median"]
    assert row["times_products"] == pytest.approx(ratio)
    assert row["tokens_per_s"] == pytest.approx(16_000 / row["both"]["ms"]["median"])
    assert row["zero_gradients"] == []
    assert others["DeltaNet"]["skipped"] == 'not installed: pip install "flash-linear-attention>=0.6.0"'
    lstm = others["LSTM"]
    against = next(one for one in rows if one["blocks"] == lstm["against"]["blocks"])
    relative = lstm["both"]["ms"]["median"] / against["both"]["ms"]["median"]
    assert lstm["relative_time"] == pytest.approx(relative)


def test_a_hard_layer_is_measured_beside_a_soft_one(tmp_path):
    out = tmp_path / "layer.json"
    arguments = "layer --dim 16 --batch 1 --length 8 --repeats 1 --baselines none --hard --out"
    assert PROGRAM.run([*arguments.split(), str(out)]) == 0
    rows = json.loads(out.read_text())["layers"]
    assert [(row["name"], row["hard"]) for row in rows] == [("BDLRU m=4", False), ("BDLRU m=4, hard", True)]
    assert all(row["both"]["ms"]["median"] > 0 for row in rows)
    assert rows[1]["parameters"] - rows[0]["parameters"] == 16  # the initial state


def test_a_baseline_that_cannot_be_captured_is_launched(monkeypatch, bdlru):
    graphs = []

    def sample(self, calls, *, cuda_graph=True):
        graphs.append(cuda_graph)
        return {"ms": {"median": 1.0}}

    monkeypatch.setattr(Setup, "sample", sample)
    layer.run_baseline("LSTM", bdlru, [bdlru], SIZES, SETUP)
    assert graphs[:2] == [False, False]
    layer.measure(4, None, SIZES, SETUP)
    assert graphs[-4:] == [True] * 4


def test_a_baseline_that_cannot_be_sized_gets_a_layer_of_its_size(monkeypatch, bdlru):
    fixed = replace(layer.BASELINES["LSTM"], units=lambda dim, parameters: 8)
    monkeypatch.setitem(layer.BASELINES, "LSTM", fixed)
    rows = [bdlru]
    row = layer.run_baseline("LSTM", bdlru, rows, SIZES, SETUP)
    assert rows[1]["sized_to"] == "LSTM"
    assert abs(rows[1]["parameters"] / row["parameters"] - 1) < layer.SLACK
    assert row["against"]["parameters"] == rows[1]["parameters"]


def test_gradients_are_checked():
    some, none, bad = torch.ones(2), torch.zeros(2), torch.tensor([1.0, float("nan")])
    assert zero_gradients(["x", "a", "b", "c"], [some, none, None, some]) == ["a", "b"]
    with pytest.raises(RuntimeError, match="gradient of a: not finite"):
        zero_gradients(["x", "a"], [some, bad])
    with pytest.raises(RuntimeError, match="gradient of x: zero"):
        zero_gradients(["x", "a"], [none, some])


def test_a_baseline_that_breaks_is_recorded(monkeypatch, bdlru):
    broken = replace(layer.BASELINES["LSTM"], build=lambda dim, units: nn.Sequential(nn.Linear(dim, 3)))
    monkeypatch.setitem(layer.BASELINES, "LSTM", broken)
    row = layer.run_baseline("LSTM", bdlru, [bdlru], SIZES, SETUP)
    assert row["failed"].startswith("RuntimeError")
    assert "both" not in row


def test_loop_carries_the_state():
    """The same as the layer's own parallel pass over the tokens, twice round."""
    torch.manual_seed(0)
    one = BDLRU(8, block_size=2).requires_grad_(False)
    loop = decode.Loop([one], batch=3, dim=8, steps=5)
    loop.run()
    loop.run()
    y, state = one(torch.cat([loop.tokens, loop.tokens]).transpose(0, 1))
    torch.testing.assert_close(loop.output, y[:, -1])
    torch.testing.assert_close(loop.states[0], state)
    loop.reset()
    assert not loop.states[0].any()


def test_record_of_steps():
    sizes = decode.Sizes(16, 2, [1, 300, 20_000], [])
    rows = [decode.measure(one, sizes, SETUP) for one in decode.parse_layers("bdlru:2,hlru:2,lstm:1")]
    read = json.loads(json.dumps(decode.new_record(SETUP) | {"layers": rows}))
    assert {"bench", "command", "date", "device", "versions", "layers"} <= set(read)
    for row in read["layers"]:
        assert row["stack"] == 2
        assert 0 < row["us"]["min"] <= row["us"]["median"] <= row["us"]["upper_quartile"]
        starts = [one["position"] for one in row["one_layer"]]
        assert starts[0] == 1
        assert len(starts) == 2  # none runs on to the last position
        assert starts[1] >= 300
