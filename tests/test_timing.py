"""Times of calls: samples in rounds, budgets, sequences, and the arithmetic on a GPU whose clock the calls advance."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import pytest
import torch

from statemix.timing import summarize, time_calls


def test_summary():
    times = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (times.median, times.low, times.high) == (3.0, 2.0, 4.0) and times.samples == (
        4.0,
        1.0,
        3.0,
        2.0,
        5.0,
    )
    assert summarize([2.0])[:3] == (2.0, 2.0, 2.0)


def test_times_on_the_cpu_are_those_of_one_call():
    times = time_calls(
        {"slow": lambda: time.sleep(0.02), "pair": [lambda: time.sleep(0.01), lambda: time.sleep(0.01)]},
        device="cpu", repeats=3,
    )  # fmt: skip
    assert 20 <= times["slow"].median < 40 and 10 <= times["pair"].median < 20
    assert len(times["slow"].samples) == 3 and times["slow"].method == "wall clock"


def test_a_slow_call_gets_fewer_samples_and_every_round_has_each_call():
    seen = []
    calls = {
        "a": lambda: seen.append("a") or time.sleep(0.02),
        "b": lambda: seen.append("b") or time.sleep(0.002),
    }
    times = time_calls(calls, device="cpu", repeats=6, budget_ms=60)
    assert len(times["a"].samples) == 3 and len(times["b"].samples) == 6
    order = [name for name, before in zip(seen, [None, *seen], strict=False) if name != before]
    assert order == [
        "a",
        "b",
        "a",
        "b",
        "a",
        "b",
        "a",
        "b",
    ]  # warm-up, estimates, then rounds begun by a, b, a, b


def test_repeats_below_one_are_refused():
    with pytest.raises(ValueError, match="repeats: got 0, expected at least 1"):
        time_calls({}, device="cpu", repeats=0)


class Gpu:
    """A device whose clock the calls advance: graphs remember how long what they captured takes."""

    def __init__(self, monkeypatch, can_capture):
        self.now, self.capturing, self.can_capture = 0.0, None, can_capture
        gpu, cuda = self, torch.cuda
        monkeypatch.setattr(cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=1))
        monkeypatch.setattr(cuda, "synchronize", lambda: None)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *size, dtype, device: empty(*size, dtype=dtype))

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.time = gpu.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return end.time - self.time

        class Graph:
            length = 0.0

            def replay(self):
                gpu.now += self.length

        @contextlib.contextmanager
        def graph(one):
            if not gpu.can_capture:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            gpu.capturing = one
            yield
            gpu.capturing = None

        for name, value in {"Event": Event, "CUDAGraph": Graph, "graph": graph}.items():
            monkeypatch.setattr(cuda, name, value)

    def call(self, length):
        if self.capturing is None:
            self.now += length + 1  # a launch costs 1
        else:
            self.capturing.length += length


@pytest.mark.parametrize(
    ("cuda_graph", "can_capture", "want", "method"),
    [
        (False, True, 4.0, "launches"),
        (True, True, 3.0, "CUDA graph"),
        (True, False, 4.0, "launches (operation not permitted)"),
    ],
)
def test_times_on_a_gpu(monkeypatch, cuda_graph, can_capture, want, method):
    gpu = Gpu(monkeypatch, can_capture)
    calls = {"single": lambda: gpu.call(3.0), "pair": [lambda: gpu.call(3.0)] * 2}
    times = time_calls(calls, device="cuda", repeats=4, cuda_graph=cuda_graph)
    for one in times.values():
        assert one.samples == (want,) * 4 and one.method == method
