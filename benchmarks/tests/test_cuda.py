"""The arithmetic of timing on a GPU, on a made-up one whose clock the calls themselves advance."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch

from benchmarks import clock, cuda

CALL = 3e-5
"""Seconds that one call takes on the made-up device."""


class Device:
    """A clock, and graphs that remember how long what they captured takes."""

    def __init__(self, can_capture=True):
        self.now, self.calls, self.can_capture, self.capturing = 0.0, 0, can_capture, None

    def call(self):
        self.calls += 1
        if self.capturing is None:
            self.now += CALL
        else:
            self.capturing.seconds += CALL

    def install(self, monkeypatch):
        device = self

        class Event:
            def __init__(self, enable_timing):
                self.time = 0.0

            def record(self):
                self.time = device.now

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return 1000 * (end.time - self.time)

        class Graph:
            def __init__(self):
                self.seconds = 0.0

            def replay(self):
                device.now += self.seconds

        @contextlib.contextmanager
        def graph(one):
            if not device.can_capture:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            device.capturing = one
            yield
            device.capturing = None

        for name, fake in {
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": graph,
            "synchronize": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)


@pytest.mark.parametrize("sets", [1, 3])
def test_graph(monkeypatch, sets):
    device = Device()
    device.install(monkeypatch)
    seconds, how = cuda.sample([device.call] * sets, repeats=15, graph=True, budget=1.0)
    assert seconds == pytest.approx([CALL] * 15)
    rounds = math.ceil(cuda.LEAST / (sets * CALL))
    assert how == f"a CUDA graph of {rounds * sets} calls"


def test_launches(monkeypatch):
    device = Device()
    device.install(monkeypatch)
    seconds, how = cuda.sample([device.call] * 2, repeats=4, graph=False, budget=1.0)
    assert seconds == pytest.approx([CALL] * 4)
    assert how == "launches"
    rounds = math.ceil(cuda.LEAST / (2 * CALL))
    assert device.calls == 2 + 2 * 2 + 4 * 2 * (1 + rounds)  # warm, once, each sample behind an untimed round


def test_what_cannot_be_captured_is_launched(monkeypatch):
    device = Device(can_capture=False)
    device.install(monkeypatch)
    seconds, how = cuda.sample([device.call], repeats=5, graph=True, budget=1.0)
    assert seconds == pytest.approx([CALL] * 5)
    assert how == "launches (operation not permitted)"


def test_the_slow_get_fewer_samples(monkeypatch):
    device = Device()
    device.install(monkeypatch)
    seconds, _ = cuda.sample([device.call], repeats=15, graph=False, budget=0.0)
    assert len(seconds) == 3


def test_percent_of_copy():
    copy = {"tb_per_s": 4.0}
    timed = {"ms": {"median": 0.05}, "timed": "x"}
    got = clock.against_copy(timed, 2 * 8 * 2048 * 1024 * 4, copy)
    assert got["tb_per_s"] == pytest.approx(134_217_728 / 50e-6 / 1e12)
    assert got["percent_of_copy"] == pytest.approx(67.1, abs=0.02)
