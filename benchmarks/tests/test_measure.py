"""The arithmetic around times: rounds on a GPU, sets of inputs, shares of a copy."""

from __future__ import annotations

import pytest
import torch

from benchmarks import measure
from statemix.timing import Times

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("sets", [1, 3])
def test_a_sample_on_a_gpu_lasts_long_enough(monkeypatch, sets):
    taken = []

    def time_calls(calls, *, repeats, **settings):
        taken.append((len(calls[""]), repeats))
        return {"": Times(0.03, 0.02, 0.04, (0.03,) * repeats, "CUDA graph")}

    monkeypatch.setattr(measure, "time_calls", time_calls)
    found = measure.Setup(CUDA, "bfloat16", 15).sample([lambda: None] * sets)
    rounds = -(-2.0 // (0.03 * sets))
    assert taken == [(sets, 1), (sets * rounds, 15)]
    assert found["ms"] == {
        "median": 0.03, "min": 0.03, "lower_quartile": 0.02, "upper_quartile": 0.04, "samples": 15
    }  # fmt: skip
    assert found["timed"] == "CUDA graph"


def test_results_are_kept_until_the_same_call_comes_again():
    kept = measure.keep_results([lambda: torch.zeros(3), lambda: torch.zeros(3)])
    results = kept[0].args, kept[1].args
    assert results == ((0,), (1,))
    addresses = []

    def call():
        tensor = torch.zeros(1000)
        addresses.append(tensor.data_ptr())
        return tensor

    first, second = measure.keep_results([call, call])
    first()
    second()
    assert addresses[0] != addresses[1]


def test_percent_of_copy():
    timed = {"ms": {"median": 0.05}, "timed": "x"}
    got = measure.share_of_copy(timed, 2 * 8 * 2048 * 1024 * 4, {"tb_per_s": 4.0})
    assert got["tb_per_s"] == pytest.approx(134_217_728 / 50e-6 / 1e12)
    assert got["percent_of_copy"] == pytest.approx(67.1, abs=0.02)


def test_sets_exceed_the_cache(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: type("P", (), {"L2_cache_size": 60})
    )
    assert [measure.set_count(CUDA, size) for size in (1000, 120, 80, 79, 60)] == [2, 2, 3, 4, 4]
    assert measure.set_count(CPU, 1) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tpu", None, 3), "device: got 'tpu', expected 'cpu'"),
        (("cpu", "int8", 3), "dtype: got 'int8', expected one of 'bfloat16'"),
        (("cpu", None, 0), "repeats: got 0, expected at least 1"),
    ],
)
def test_bad_setups(arguments, words):
    with pytest.raises(ValueError, match=words):
        measure.make_setup(*arguments)


def test_default_setup():
    assert measure.make_setup("cpu", None, 3) == measure.Setup(CPU, "float32", 3)
