"""Time and memory on a CUDA device; nothing here runs without one."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], object]

LEAST = 2e-3
"""Seconds that one sample lasts at least, so that the events' own time does not count."""


def cache_bytes() -> int:
    """Of the second-level cache."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)


def free() -> None:
    """Hand back what nobody holds any more. After a device error nothing can be, and the next call will say so."""
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def _elapsed(run: Call, rounds: int = 1) -> float:
    """Seconds on the device for `rounds` runs behind an untimed one, which keeps the queue full meanwhile."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    run()
    start.record()
    for _ in range(rounds):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _round(calls: Sequence[Call]) -> Call:
    """All calls, one after another, their results kept until the same call comes again."""
    kept: list[object] = [None] * len(calls)

    def run() -> None:
        for place, call in enumerate(calls):
            kept[place] = None
            kept[place] = call()

    return run


def capture(run: Call, rounds: int = 1) -> Call:
    """`rounds` runs as one CUDA graph that can be replayed; what the last returned stays alive with it."""
    graph: Any = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            run()

    def replay(_alive: Call = run) -> None:
        graph.replay()

    return replay


def sample(calls: Sequence[Call], repeats: int, graph: bool, budget: float) -> tuple[list[float], str]:
    """Seconds for one call, `repeats` times, and how they were taken.

    One sample is one or more rounds of all calls, of at least `LEAST` seconds, between two events. With `graph` the
    rounds are replayed as a CUDA graph; a round that cannot be captured is launched, and the reason is told.
    Fewer samples, but at least three, where all would take longer than `budget` seconds.
    """
    once = _round(calls)
    once()  # compiles
    torch.cuda.synchronize()
    run, how, inside = once, "launches", 1
    if graph:
        try:
            inside = max(1, math.ceil(LEAST / _elapsed(capture(once, 1))))
            run, how = capture(once, inside), f"a CUDA graph of {inside * len(calls)} calls"
        except RuntimeError as error:
            torch.cuda.synchronize()
            run, how, inside = once, f"launches ({str(error).splitlines()[0]})", 1
    lasting = max(_elapsed(run), 1e-9)
    rounds = max(1, math.ceil(LEAST / lasting))
    count = min(repeats, max(3, int(budget / ((rounds + 1) * lasting))))
    per_sample = rounds * inside * len(calls)
    return [_elapsed(run, rounds) / per_sample for _ in range(count)], how


def extra_memory(run: Callable[[], Sequence[torch.Tensor]]) -> int:
    """Bytes that a run holds at its peak beyond what was there before it and what it returns."""
    run()
    free()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = run()
    torch.cuda.synchronize()
    kept = sum(x.untyped_storage().nbytes() for x in results)
    return max(0, torch.cuda.max_memory_allocated() - before - kept)
