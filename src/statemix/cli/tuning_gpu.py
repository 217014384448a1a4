"""Launches tried on the GPU that is here, through the operators as they are used: right numbers first, then time."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import passes
from benchmarks.cases import Case
from benchmarks.clock import set_count, time_calls
from benchmarks.exact import corner, exact, relative_rms
from statemix.cli.tuning import Launch
from statemix.ops import triton
from statemix.ops.triton.table import Key, default

BACKEND = "triton"
BUDGET = 0.5
"""Seconds that all samples of one launch may take."""

TURNS_FROM = (9, 0)
"""The first compute capability with what the kernels that take turns need."""

ALIGNED = 8
"""Blocks are a multiple of this, so that copies are as wide as they can be."""

LITTLE = 64
"""Steps of what is run to have a launch compiled."""


def check_machine() -> torch.device:
    """The GPU to tune. ValueError that says what is missing."""
    if not torch.cuda.is_available():
        raise ValueError(
            "device: no CUDA device is there, and launches can only be measured on one (--list needs none)"
        )
    device = torch.device("cuda", torch.cuda.current_device())
    reason = triton.unavailable(device)
    if reason is not None:
        raise ValueError(f"backend: {BACKEND!r} cannot run: {reason}")
    return device


def name(device: torch.device) -> str:
    """Of the GPU, as launch tables have it."""
    return torch.cuda.get_device_name(device)


def aligned(case: Case) -> Case:
    """The case with a number of blocks that suits every kernel, if it has that many."""
    return case._replace(blocks=case.blocks // ALIGNED * ALIGNED or case.blocks)


class Gpu:
    """`tuning.Measurer` for one case: inputs that push one another out of the cache, and the true numbers."""

    def __init__(self, case: Case, dtype: str, place: torch.device, repeats: int, threads: int) -> None:
        self.case, self.dtype, self.place, self.repeats, self.threads = case, dtype, place, repeats, threads
        self.device = name(place)
        on_hip = torch.version.hip is not None
        self.capability = (0, 0) if on_hip else torch.cuda.get_device_capability(place)
        self.turns = self.capability >= TURNS_FROM
        properties: Any = torch.cuda.get_device_properties(place)
        self.shared = int(getattr(properties, "shared_memory_per_block_optin", 0))
        self._broken: dict[tuple[str, Launch], str] = {}
        sets = set_count(place, case.bytes(passes.DTYPES[dtype].itemsize)["forward"])
        self.inputs = [passes.draw(case, place, passes.DTYPES[dtype], seed) for seed in range(sets)]
        self.states = [passes.forward(case, x, BACKEND)[0] for x in self.inputs]
        first = self.inputs[0]
        self.true = exact(
            case.recurrence, corner(first.gates), corner(first.values), corner(first.grad_states)
        )

    def key(self, direction: str) -> Key | None:
        """What the operator asks the table for."""
        with choosing({}) as asked:
            self._calls(direction)[0]()
        return next((key for key in asked if key.direction == direction), None)

    def compile(self, direction: str, launches: Sequence[Launch]) -> None:
        """Run every launch once, in threads: the compiler works outside Python for the most part."""
        call = _call(direction, self.case, *self._little())

        def once(launch: Launch) -> None:
            try:
                with torch.cuda.device(self.place), choosing({direction: launch}):
                    call()
            except Exception as error:  # of the compiler or the driver; told when the launch is to be timed
                self._broken[direction, launch] = f"{type(error).__name__}: {error}"

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(once, launches))
        torch.cuda.synchronize(self.place)

    def milliseconds(self, direction: str, launch: Launch) -> float:
        """Check the numbers of a launch, then time it."""
        if (direction, launch) in self._broken:
            raise RuntimeError(self._broken[direction, launch])
        calls = self._calls(direction)
        with choosing({direction: launch}):
            for result in calls[0]():
                result.fill_(float("nan"))  # where the next results will lie
            self._check(direction, calls[0]())
            timed = time_calls(calls, self.repeats, self.place, budget=BUDGET)
        return float(timed["ms"]["median"])

    def _calls(self, direction: str) -> list[Callable[[], Sequence[Tensor]]]:
        pairs = zip(self.inputs, self.states, strict=True)
        return [_call(direction, self.case, x, states) for x, states in pairs]

    def _little(self) -> tuple[passes.Inputs, Tensor]:
        """Inputs and states that the same kernels take as the case's, but few steps."""
        little = self.case._replace(batch=1, length=min(self.case.length, LITTLE))
        x = passes.draw(little, self.place, passes.DTYPES[self.dtype])
        return x, passes.forward(little, x, BACKEND)[0]

    def _check(self, direction: str, results: Sequence[Tensor]) -> None:
        """RuntimeError if a number is not finite or off by more than the dtype's bound."""
        states, gradients = passes.BOUNDS[self.dtype]
        true, bound = (self.true[:1], states) if direction == "forward" else (self.true[1:], gradients)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in results):
            raise RuntimeError("not finite")
        for got, want in zip(results, true, strict=False):  # of the carried state there is no true one
            error = relative_rms(corner(got), want)
            if not error <= bound:
                raise RuntimeError(f"error {error:.1e} against float64, expected at most {bound:.0e}")


def _call(direction: str, case: Case, x: passes.Inputs, states: Tensor) -> Callable[[], Sequence[Tensor]]:
    if direction == "forward":
        return partial(passes.forward, case, x, BACKEND)
    return partial(passes.backward, case, x, states, BACKEND)


class _Asked(threading.local):
    """What a thread wants instead of the table, by direction, and the keys that the table was asked for."""

    def __init__(self) -> None:
        self.launches: dict[str, Launch] = {}
        self.keys: list[Key] = []


_ASKED = _Asked()


def _choose(key: Key, device: str, capability: tuple[int, int]) -> Launch:
    """Stands in for `table.choose`: this thread's launch for the direction, else the default; no user's table."""
    _ASKED.keys.append(key)
    return _ASKED.launches.get(key.direction, default(key, capability))


@contextmanager
def choosing(launches: dict[str, Launch]) -> Iterator[list[Key]]:
    """In this thread, launches by direction instead of the defaults, `in_charge`; yields the keys asked for."""
    before = _ASKED.launches, _ASKED.keys
    _ASKED.launches, _ASKED.keys = launches, []
    try:
        yield _ASKED.keys
    finally:
        _ASKED.launches, _ASKED.keys = before


@contextmanager
def in_charge() -> Iterator[None]:
    """`choosing` decides for the whole process, and the user's table does not."""
    dispatch: Any = importlib.import_module("statemix.ops.triton.dispatch")
    before = dispatch.choose
    dispatch.choose = _choose
    try:
        yield
    finally:
        dispatch.choose = before
