"""Times, memory and bandwidth on a device, in the form that records keep, and baselines of other packages."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch

from benchmarks.records import Record
from statemix.environment import installed_version
from statemix.extras import install, installed
from statemix.timing import Times, time_calls

Call = Callable[[], object]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

MIN_SAMPLE_MS = 2.0
"""On a GPU a sample lasts at least this long, so that the events' own time does not count."""

BUDGET_MS = 4000.0
"""Milliseconds that all samples of one call may take."""

COPY_BYTES = {"cuda": 2 << 30, "cpu": 64 << 20}
"""Size of the copy whose bandwidth is measured."""


class Setup(NamedTuple):
    """Where, in which dtype and how often calls are timed."""

    device: torch.device
    dtype: str = "float32"
    repeats: int = 15

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        return DTYPES[self.dtype]

    def sample(self, calls: Sequence[Call], *, cuda_graph: bool = True) -> Record:
        """Milliseconds of one call, the mean over `calls`, which are the same on different inputs: {"ms", "timed"}."""
        calls = keep_results(calls)
        if self.device.type == "cuda":
            once = time_calls({"": calls}, device=self.device, repeats=1)[""].median * len(calls)
            calls = calls * max(1, math.ceil(MIN_SAMPLE_MS / once))
        timing = time_calls(
            {"": calls},
            device=self.device,
            repeats=self.repeats,
            budget_ms=BUDGET_MS,
            cuda_graph=cuda_graph,
        )
        return as_record(timing[""])


def as_record(times: Times, key: str = "ms") -> Record:
    """Times as records keep them, in milliseconds."""
    ms = {"median": times.median, "min": min(times.samples), "lower_quartile": times.low}
    ms |= {"upper_quartile": times.high, "samples": len(times.samples)}
    return {key: ms, "timed": times.method}


def keep_results(calls: Sequence[Call]) -> list[Call]:
    """Calls that keep their result until they are called again, so that the next one writes to other memory."""
    results: list[object] = [None] * len(calls)

    def run(place: int) -> None:
        results[place] = None
        results[place] = calls[place]()

    return [partial(run, place) for place in range(len(calls))]


def make_setup(device: str | None, dtype: str | None, repeats: int) -> Setup:
    """Checked options; without a device CUDA if available, without a dtype bfloat16 there and float32 elsewhere."""
    available = torch.cuda.is_available()
    name = device or ("cuda" if available else "cpu")
    if name != "cpu" and not (name == "cuda" and available):
        known = "'cpu' or 'cuda'" if available else "'cpu' (no CUDA device is available)"
        raise ValueError(f"device: got {name!r}, expected {known}")
    dtype = dtype or ("bfloat16" if name == "cuda" else "float32")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: got {dtype!r}, expected one of {', '.join(map(repr, DTYPES))}")
    if repeats < 1:
        raise ValueError(f"repeats: got {repeats}, expected at least 1")
    return Setup(torch.device(name), dtype, repeats)


def set_count(device: torch.device, set_bytes: int) -> int:
    """How many sets of inputs exceed four times the second-level cache together; at least 2."""
    cache = 0
    if device.type == "cuda":
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return max(2, math.ceil(4 * cache / max(set_bytes, 1)))


def copy_bandwidth(setup: Setup) -> Record:
    """A plain copy: its time, and the bytes read and written in 10¹² a second.

    Launched, not replayed: as a node of a CUDA graph the same copy is slower, and every share of it would be larger.
    """
    size = COPY_BYTES[setup.device.type]
    source = torch.empty(size // 2, dtype=torch.bfloat16, device=setup.device).normal_()
    target = torch.empty_like(source)
    timed = setup.sample([lambda: target.copy_(source)], cuda_graph=False)
    return {"bytes": 2 * size, **timed, "tb_per_s": 2 * size / timed["ms"]["median"] / 1e9}


def share_of_copy(timed: Record, least: int, copy: Record) -> Record:
    """A timing with its least bytes, the speed on them, and that speed in percent of the copy's."""
    speed = least / timed["ms"]["median"] / 1e9
    return {**timed, "bytes": least, "tb_per_s": speed, "percent_of_copy": 100 * speed / copy["tb_per_s"]}


def short_autotuning() -> contextlib.AbstractContextManager[object]:
    """Let packages that tune Triton kernels at their first call time each candidate for 25 ms instead of 125 ms."""
    if not (torch.cuda.is_available() and installed("triton")):
        return contextlib.nullcontext()
    import triton

    driver = triton.runtime.driver.active
    short = partial(driver.get_benchmarker(), warmup=5, rep=20)
    return mock.patch.object(type(driver), "get_benchmarker", return_value=short)


def attempt(names: Record, device: torch.device, measure: Callable[[], Record]) -> Record:
    """A measured row with its names, or the names with the reason ("failed"): the others are still measured."""
    try:
        with short_autotuning():
            return names | measure()
    except Exception as error:  # compilers, drivers and foreign packages raise of every kind
        return names | {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    finally:
        free(device)


def free(device: torch.device) -> None:
    """Release memory that nothing holds. After a device error this fails silently, and the next call will say so."""
    if device.type == "cuda":
        gc.collect()
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


DISTRIBUTIONS = {
    "torch": "torch", "fla": "flash-linear-attention", "accelerated_scan": "accelerated-scan"
}  # fmt: skip
"""Packages of the baselines, by the module that is imported."""


@dataclass(frozen=True)
class Baseline:
    """What is measured beside statemix: what it is, its module, and whether it runs on CUDA devices alone."""

    description: str
    module: str
    needs_gpu: bool


def measure_baseline(
    baseline: Baseline, names: Record, device: torch.device, measure: Callable[[], Record] | str
) -> Record:
    """A baseline's measured row, or the row with the reason why it was skipped or failed.

    measure: measures it, or says why it cannot be measured.
    """
    distribution = DISTRIBUTIONS[baseline.module]
    package = f"{distribution} {installed_version(distribution)}"
    row = {"description": baseline.description, "package": package, **names}
    if not installed(baseline.module):
        return row | {"skipped": f"not installed: {install(baseline.module)}"}
    if baseline.needs_gpu and device.type != "cuda":
        return row | {"skipped": "needs a CUDA device"}
    return row | {"skipped": measure} if isinstance(measure, str) else attempt(row, device, measure)


def choose(text: str, known: Iterable[str]) -> list[str]:
    """ "all", "none" or comma-separated names -> names; ValueError for an unknown one."""
    known = list(known)
    names = {"all": known, "none": []}.get(text, text.split(","))
    for name in names:
        if name not in known:
            raise ValueError(f"baselines: got {name!r}, expected all, none or some of {','.join(known)}")
    return names
