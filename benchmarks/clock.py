"""One way to time anything on any device: rounds of calls that take turns among several sets of inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import cuda
from benchmarks.cuda import Call
from benchmarks.timing import summarize

BUDGET = 8.0
"""Seconds that all samples of one thing may take."""

COPY_BYTES = {"cuda": 2 << 30, "cpu": 64 << 20}
"""How much is copied to measure the bandwidth."""


def resolve_device(name: str | None) -> torch.device:
    """A device by name; None takes a CUDA device if there is one. ValueError if it cannot be used."""
    available = torch.cuda.is_available()
    if name is None:
        return torch.device("cuda" if available else "cpu")
    if name == "cpu" or (name == "cuda" and available):
        return torch.device(name)
    known = "'cpu' or 'cuda'" if available else "'cpu' (no CUDA device is there)"
    raise ValueError(f"device: got {name!r}, expected {known}")


def check_repeats(repeats: int) -> None:
    """ValueError below 1."""
    if repeats < 1:
        raise ValueError(f"repeats: got {repeats}, expected at least 1")


def set_count(device: torch.device, set_bytes: int) -> int:
    """How many sets of inputs push one another out of the second-level cache: over four times its size, at least 2."""
    cache = cuda.cache_bytes() if device.type == "cuda" else 0
    return max(2, math.ceil(4 * cache / max(set_bytes, 1)))


def time_calls(
    calls: Sequence[Call], repeats: int, device: torch.device, *, graph: bool = True, budget: float = BUDGET
) -> dict[str, Any]:
    """Milliseconds for one call, on average over `calls`, which are the same on different inputs: {"ms", "timed"}."""
    if device.type == "cuda":
        seconds, how = cuda.sample(calls, repeats, graph, budget)
    else:
        seconds, how = _wall(calls, repeats, budget), "wall clock"
    return {"ms": summarize(seconds), "timed": how}


def _wall(calls: Sequence[Call], repeats: int, budget: float) -> list[float]:
    def once() -> float:
        start = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - start) / len(calls)

    once()
    lasting = max(once() * len(calls), 1e-9)
    return [once() for _ in range(min(repeats, max(3, int(budget / lasting))))]


def free(device: torch.device) -> None:
    """Hand back memory that nobody holds any more."""
    if device.type == "cuda":
        cuda.free()


def copy_bandwidth(device: torch.device, repeats: int) -> dict[str, Any]:
    """A plain copy on the device: its time, and the bytes read and written in 10¹² a second.

    Launched, not replayed: as a node of a CUDA graph the same copy is slower, and a low ceiling would flatter.
    """
    size = COPY_BYTES[device.type]
    source = torch.empty(size // 2, dtype=torch.bfloat16, device=device).normal_()
    target = torch.empty_like(source)
    timed = time_calls([lambda: target.copy_(source)], repeats, device, graph=False)
    return {"bytes": 2 * size, **timed, "tb_per_s": 2 * size / timed["ms"]["median"] / 1e9}


def against_copy(timed: dict[str, Any], least: int, copy: dict[str, Any]) -> dict[str, Any]:
    """A timing with its least bytes, the speed on them, and that speed in percent of the copy's."""
    speed = least / timed["ms"]["median"] / 1e9
    return {**timed, "bytes": least, "tb_per_s": speed, "percent_of_copy": 100 * speed / copy["tb_per_s"]}
