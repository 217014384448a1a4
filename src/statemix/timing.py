"""Times calls side by side on a CPU or a GPU."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.benchmark import Timer

Call = Callable[[], object]

MIN_SAMPLES = 3
"""Taken even where they exceed the budget, unless `repeats` is smaller."""

MIN_SAMPLE_MS = 1.0
"""On the CPU a shorter call is repeated within a sample until the sample lasts this long."""


class Times(NamedTuple):
    """Milliseconds of one call: median, quartiles, all samples, and the method they were taken with."""

    median: float
    low: float
    high: float
    samples: tuple[float, ...]
    method: str


def time_calls(
    calls: Mapping[str, Call | Sequence[Call]],
    *,
    device: torch.device | str,
    repeats: int = 15,
    budget_ms: float = 10_000.0,
    cuda_graph: bool = False,
) -> dict[str, Times]:
    """Time every call in rounds, one sample of each per round, so that drift of the machine affects all alike.

    The first run of a call, which may compile, is not timed. On a CPU samples come from `torch.utils.benchmark`; on a
    CUDA device they are times between two events, after an untimed run and a flush of the L2 cache.

    Args:
        calls: Calls without arguments by name. A sequence of calls is run as a whole and divided by its length: the
            same computation on several inputs, or a call too short for a sample of its own.
        device: Where the calls compute.
        repeats: Samples per call, at least 1.
        budget_ms: Milliseconds that all samples of one call may take; a slower call gets fewer, at least 3.
        cuda_graph: Replay each call as a CUDA graph, which excludes launch overhead; one that cannot be captured is
            launched, and `Times.method` says why. Ignored on a CPU.
    """
    if repeats < 1:
        raise ValueError(f"repeats: got {repeats}, expected at least 1")
    device = torch.device(device)
    samplers = {name: _sampler(call, device, cuda_graph) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    estimates = {name: max(sample(), 1e-6) for name, (sample, _) in samplers.items()}
    counts = {name: min(repeats, max(MIN_SAMPLES, int(budget_ms / ms))) for name, ms in estimates.items()}
    for round_number in range(max(counts.values(), default=0)):
        due = [name for name, count in counts.items() if round_number < count]
        shift = round_number % len(due)
        for name in due[shift:] + due[:shift]:
            samples[name].append(samplers[name][0]())
    return {name: summarize(samples[name], samplers[name][1]) for name in calls}


def summarize(samples: Sequence[float], method: str = "wall clock") -> Times:
    """Median and quartiles of samples in milliseconds."""
    several = samples if len(samples) > 1 else [*samples, *samples]
    low, median, high = statistics.quantiles(several, n=4, method="inclusive")
    return Times(median, low, high, tuple(samples), method)


def _sampler(
    call: Call | Sequence[Call], device: torch.device, cuda_graph: bool
) -> tuple[Callable[[], float], str]:
    """A function that samples the milliseconds of one call, and its method."""
    calls = [call] if callable(call) else list(call)

    def run() -> None:
        for one in calls:
            one()

    run()  # compiles
    if device.type == "cuda":
        timed, method = _captured(run) if cuda_graph else (run, "launches")
        cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        return (lambda: _cuda_ms(timed, cache_bytes, device) / len(calls)), method
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    number = max(1, int(MIN_SAMPLE_MS / max(1e3 * timer.timeit(1).mean, 1e-6)))
    return (lambda: 1e3 * timer.timeit(number).mean / len(calls)), "wall clock"


def _captured(run: Call) -> tuple[Call, str]:
    graph = torch.cuda.CUDAGraph()
    try:
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        torch.cuda.synchronize()
        return run, f"launches ({str(error).splitlines()[0]})"
    return graph.replay, "CUDA graph"


def _cuda_ms(run: Call, cache_bytes: int, device: torch.device) -> float:
    event: Any = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    run()
    torch.empty(4 * cache_bytes, dtype=torch.uint8, device=device).zero_()  # flushes the L2 cache
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))
