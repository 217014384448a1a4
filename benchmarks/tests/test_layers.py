"""The benches of whole layers and of single steps, at tiny sizes on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from benchmarks import decode, layer_rivals, layers
from statemix.nn import BDLRU

CPU = torch.device("cpu")
SETTING = layers.Setting(32, 2, 8, torch.float32, CPU, 3)
PRESET = layers.PRESETS["layer"]


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("wanted", [7_345_152, 33_000_000])
def test_ours_has_the_parameters_wanted(m, wanted):
    with torch.device("meta"):
        layer = BDLRU(1024, block_size=m, num_blocks=layers.blocks_for(1024, m, wanted))
    assert abs(layers.parameters(layer) / wanted - 1) < layers.SLACK / 2


def test_blocks_are_round_where_they_can_be():
    assert layers.blocks_for(1024, 4, 33_000_000) == 1152
    assert layers.blocks_for(32, 16, 40_000) == 4


@pytest.mark.parametrize("wanted", [7_345_152, 33_000_000])
def test_the_lstm_has_the_parameters_wanted(wanted):
    rival = layer_rivals.RIVALS["LSTM"]
    with torch.device("meta"):
        layer = rival.build(1024, rival.units(1024, wanted))
    assert abs(layers.parameters(layer) / wanted - 1) < 0.01


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
def test_sizes_of_rivals(name, units):
    """As counted on the real layers: within 3 % of 7 345 152 parameters."""
    assert layer_rivals.RIVALS[name].units(1024, 7_345_152) == units


def test_record_of_layers(monkeypatch):
    monkeypatch.setattr("benchmarks.packages.find_spec", lambda name: None if name != "torch" else name)
    ours = list(layers.run_ours(PRESET, SETTING))
    others = dict(layers.run_rivals(PRESET, list(PRESET.rivals), ours, SETTING))
    record = layers.record(ours, others, preset="layer", setting=SETTING, command="statemix bench layer")
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
    row = read["ours"][0]
    assert row["parameters"] == layers.parameters(BDLRU(32, block_size=4))
    assert row["times_products"] == pytest.approx(
        row["both"]["ms"]["median"] / row["products"]["both"]["ms"]["median"]
    )
    assert row["products"]["flops"] == {"forward": 2 * 16 * 7 * 32 * 32, "both": 6 * 16 * 7 * 32 * 32}
    assert row["tokens_per_s"] == pytest.approx(16_000 / row["both"]["ms"]["median"])
    assert row["zero_gradients"] == []
    assert others["DeltaNet"]["left_out"] == 'not installed: pip install "flash-linear-attention>=0.6.0"'
    lstm = others["LSTM"]
    against = next(
        one
        for one in ours
        if one.get("sized_to", "LSTM") == "LSTM" and one["blocks"] == lstm["against"]["blocks"]
    )
    assert lstm["times_ours"] == pytest.approx(lstm["both"]["ms"]["median"] / against["both"]["ms"]["median"])


def test_a_rival_that_no_graph_holds_is_launched(monkeypatch):
    asked = []

    def timed(calls, repeats, device, graph=True, **how):
        asked.append(graph)
        return {"ms": {"median": 1.0}}

    ours = list(layers.run_ours(PRESET, SETTING))
    monkeypatch.setattr(layers, "time_calls", timed)
    dict(layers.run_rivals(PRESET, ["LSTM"], ours, SETTING))
    assert asked[:2] == [False, False]
    list(layers.run_ours(PRESET, SETTING))
    assert asked[-4:] == [True] * 4


def test_a_rival_that_cannot_be_sized_gets_one_of_ours(monkeypatch):
    fixed = layer_rivals.RIVALS["LSTM"]._replace(units=lambda dim, parameters: 8)
    monkeypatch.setitem(layers.RIVALS, "LSTM", fixed)
    ours = list(layers.run_ours(PRESET, SETTING))
    ((name, row),) = layers.run_rivals(PRESET, ["LSTM"], ours, SETTING)
    assert (name, ours[1]["sized_to"]) == ("LSTM", "LSTM")
    assert abs(ours[1]["parameters"] / row["parameters"] - 1) < layers.SLACK
    assert row["against"]["parameters"] == ours[1]["parameters"]


def test_the_paper_measures_every_m():
    preset = layers.PRESETS["paper"]._replace(parameters=20_000, block_sizes=(1, 4))
    rows = list(layers.run_ours(preset, SETTING))
    assert [row["m"] for row in rows] == [1, 4]
    assert layers.PRESETS["paper"].block_sizes == (1, 2, 4, 8, 16)
    assert layers.PRESETS["paper"].parameters == 33_000_000


def test_gradients_are_looked_at():
    some, none, bad = torch.ones(2), torch.zeros(2), torch.tensor([1.0, float("nan")])
    assert layers.look_at(["x", "a", "b", "c"], [some, none, None, some]) == ["a", "b"]
    with pytest.raises(RuntimeError, match="gradient of a: not finite"):
        layers.look_at(["x", "a"], [some, bad])
    with pytest.raises(RuntimeError, match="gradient of x: zero"):
        layers.look_at(["x", "a"], [none, some])


def test_a_rival_that_breaks_is_recorded(monkeypatch):
    def build(dim, units):
        return nn.Sequential(nn.Linear(dim, 3))

    monkeypatch.setitem(layers.RIVALS, "LSTM", layer_rivals.RIVALS["LSTM"]._replace(build=build))
    ours = list(layers.run_ours(PRESET, SETTING))
    ((_, row),) = layers.run_rivals(PRESET, ["LSTM"], ours, SETTING)
    assert row["failed"].startswith("RuntimeError")
    assert "both" not in row


def test_unknown_layer_rival():
    with pytest.raises(ValueError, match="rivals: got 'Mamba', expected all, none or some of DeltaNet"):
        layer_rivals.choose("Mamba")


def test_loop_carries_the_state():
    """The same as the layer's own parallel pass over the tokens, twice round."""
    torch.manual_seed(0)
    layer = BDLRU(8, block_size=2).requires_grad_(False)
    loop = decode.Loop([layer], batch=3, dim=8, steps=5)
    loop.run()
    loop.run()
    y, state = layer(torch.cat([loop.tokens, loop.tokens]).transpose(0, 1))
    torch.testing.assert_close(loop.output, y[:, -1])
    torch.testing.assert_close(loop.states[0], state)
    loop.reset()
    assert not loop.states[0].any()


def test_record_of_steps():
    subjects = decode.parse_layers("bdlru:2,hlru:2,lstm:1")
    setting = decode.Setting(16, 2, torch.float32, CPU, 3, [1, 300, 20_000], [])
    rows = list(decode.run(subjects, setting))
    read = json.loads(json.dumps(decode.record(rows, command="statemix bench decode", device=CPU)))
    assert {"bench", "command", "date", "device", "versions", "layers"} <= set(read)
    for row in read["layers"]:
        assert row["stack"] == 2
        assert 0 < row["us"]["min"] <= row["us"]["median"] <= row["us"]["upper_quartile"]
        starts = [one["position"] for one in row["one_layer"]]
        assert starts[0] == 1
        assert len(starts) == 2  # nobody runs on to the last position
        assert starts[1] >= 300


def test_a_layer_that_breaks_is_recorded(monkeypatch):
    def build(dim, m):
        raise RuntimeError("no kernel")

    monkeypatch.setitem(decode.BUILDERS, "hlru", build)
    setting = decode.Setting(16, 2, torch.float32, CPU, 3, [1], [])
    (row,) = decode.run(decode.parse_layers("hlru:2"), setting)
    assert row["failed"] == "RuntimeError: no kernel"
