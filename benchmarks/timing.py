"""Timing several contestants fairly: in turns, so that a disturbance of the machine meets them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypedDict

LEAST_SAMPLES = 3


class Timing(TypedDict):
    """Milliseconds of one contestant: median, minimum and quartiles of `samples` runs."""

    median: float
    min: float
    lower_quartile: float
    upper_quartile: float
    samples: int


def summarize(seconds: list[float]) -> Timing:
    """The statistics of a list of times in seconds, in milliseconds."""
    times = [1000 * s for s in seconds]
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {
        "median": statistics.median(times),
        "min": min(times),
        "lower_quartile": quartiles[0],
        "upper_quartile": quartiles[2],
        "samples": len(times),
    }


def interleaved(
    contestants: Mapping[str, Callable[[], object]], repeats: int, budget: float = 10.0
) -> dict[str, Timing]:
    """Time every contestant `repeats` times in turns, after warming up; who begins a turn changes.

    A timed run follows an untimed one of the same contestant, so that it finds its memory and caches as in a
    training loop and not as another contestant left them. One that would take longer than `budget` seconds for
    all its timed runs gets fewer, but at least three (`repeats` if that is smaller).
    """
    rounds = {}
    for name, run in contestants.items():
        once = _once(run)  # compiles
        if once < 1.0:
            once = _once(run)
        affordable = int(budget / max(once, 1e-9))
        rounds[name] = min(repeats, max(LEAST_SAMPLES, affordable))
    order, seconds = list(contestants), {name: list[float]() for name in contestants}
    for turn in range(max(rounds.values(), default=0)):
        shift = turn % len(order)
        for name in order[shift:] + order[:shift]:
            if turn < rounds[name]:
                _once(contestants[name])
                seconds[name].append(_once(contestants[name]))
    return {name: summarize(times) for name, times in seconds.items()}


def _once(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
