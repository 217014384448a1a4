"""Benchmarks launch configurations of the Triton kernels on this GPU, and keeps the fastest in a launch table."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.cli import selfcheck
from statemix.ops import triton
from statemix.ops.dispatch import RECURRENCES
from statemix.ops.launch import LaunchConfig, LaunchKey, choosing, default_launch, read_user_file, user_table
from statemix.ops.layout import Role, in_fast_format
from statemix.timing import time_calls
from statemix.training.files import replace_file

WORKERS_AND_WARPS = ((2, 1), (2, 2), (2, 4), (4, 1), (4, 2))
BLOCK_T = {
    "forward": {2: (4, 8, 16, 32), 7: (4, 8, 16), 16: (2, 4, 8)},
    "backward": {2: (2, 4, 8, 16), 7: (2, 4, 8), 16: (1, 2, 4)},
}
"""Steps of a tile, by direction and the largest m that the entry is for."""

STAGES = (2, 3, 4)
REGISTERS = {1: (80, 128), 16: (128,)}
"""Registers of a thread, by the largest m that the entry is for."""

REGISTER_FILE = 65_536
"""Registers of a multiprocessor; a program has four idle warps and at least four busy ones."""

MIN_GAIN = 0.01
"""A launch that beats the default by less than this fraction is not entered: the default is."""

ALIGNMENT = 8
"""Blocks are a multiple of this, so that copies are as wide as they can be."""

DIRECTIONS = ("forward", "backward")

INPUT_AXES, OUTPUT_AXES = (2, 2, 1, 2, 1), {"forward": (2, 1), "backward": (2, 2, 1)}
"""Where N lies: in the scan's inputs and the outputs' gradients; in its outputs, or the inputs' gradients."""

BACKEND = "triton"
LaunchOrPortable = LaunchConfig | None
"""None stands for the portable kernels."""


class Shape(NamedTuple):
    """A recurrence with block size or order m, on B sequences of T steps and N blocks or channels."""

    recurrence: str
    m: int
    batch: int
    length: int
    blocks: int


def parse_shapes(shapes: str, sizes: str) -> list[Shape]:
    """ "bdlru:4,hlru:4:1024" at every size of "8x2048x1024,…" (BxTxH); N = H / m unless a third number gives it."""
    found = []
    for size in map(str.strip, sizes.split(",")):
        if re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", size) is None:
            raise ValueError(f"sizes: got {size!r}, expected BxTxH, such as 8x2048x1024")
        batch, length, hidden = map(int, size.split("x"))
        for shape in map(str.strip, shapes.split(",")):
            if re.fullmatch(rf"({'|'.join(RECURRENCES)}):[1-9]\d*(:[1-9]\d*)?", shape) is None:
                known = ", ".join(f"{name}:m" for name in RECURRENCES)
                raise ValueError(f"shapes: got {shape!r}, expected {known} or the same with :N")
            recurrence, m, *rest = shape.split(":")
            blocks = int(rest[0]) if rest else hidden // int(m)
            if blocks < 1:
                raise ValueError(f"shapes: got {shape!r}, expected m of at most H = {hidden}")
            found.append(Shape(recurrence, int(m), batch, length, blocks // ALIGNMENT * ALIGNMENT or blocks))
    return found


def shared_bytes(key: LaunchKey, launch: LaunchConfig) -> int:
    """Shared memory of a launch: the stages of every worker and the carried states (barriers left aside)."""
    workers, warps, block_t, stages, _ = launch
    rows = block_t + (key.m - 1 if key.kernels == "hlru" else 0)
    planes = block_t * (key.m + 2)
    if key.direction == "backward":
        planes = block_t * (key.m + 3) + (1 << (rows - 1).bit_length())
    carried = key.m if key.kernels == "hlru" else 1
    return workers * warps * 32 * (planes * stages * key.bytes + carried * 4)


def candidates(key: LaunchKey, shared: int) -> list[LaunchOrPortable]:
    """The launches worth timing on a GPU whose programs have `shared` bytes for the Hopper kernels (0: none runs)."""

    def up_to_m(table: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
        return next((entry for limit, entry in table.items() if key.m <= limit), ())

    grid = [
        LaunchConfig(workers, warps, block_t, stages, registers)
        for workers, warps in WORKERS_AND_WARPS
        for block_t in up_to_m(BLOCK_T[key.direction])
        for stages in STAGES
        for registers in up_to_m(REGISTERS)
        if (4 + max(4, workers * warps)) * 32 * registers <= REGISTER_FILE
    ]
    return [*(launch for launch in grid if shared_bytes(key, launch) <= shared), None]


class Choice(NamedTuple):
    """The fastest launch for a shape and direction beside the default, in milliseconds, and what failed and why."""

    shape: Shape
    key: LaunchKey
    default: LaunchOrPortable
    default_ms: float | None
    best: LaunchOrPortable
    best_ms: float
    tried: int
    failed: dict[LaunchOrPortable, str]


def choose_best(gpu: Any, direction: str) -> Choice | None:
    """Time the default and every candidate on a `Gpu`. None if nothing can be chosen; RuntimeError if all failed."""
    if (key := gpu.key(direction)) is None:
        return None
    usual = default_launch(key, gpu.capability)
    launches = list(dict.fromkeys([usual, *candidates(key, gpu.shared)]))
    gpu.compile(direction, launches)
    times: dict[LaunchOrPortable, float] = {}
    failed: dict[LaunchOrPortable, str] = {}
    for launch in launches:
        try:
            times[launch] = gpu.milliseconds(direction, launch)
        except Exception as error:  # of the compiler or the driver, or wrong numbers
            failed[launch] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if not times:
        raise RuntimeError(f"{key}: no launch of {len(launches)} is right, the first: {failed[usual]}")
    best = min(times, key=times.__getitem__)
    if usual in times and times[best] > (1 - MIN_GAIN) * times[usual]:
        best = usual
    return Choice(gpu.shape, key, usual, times.get(usual), best, times[best], len(launches), failed)


def save(path: Path, device: str, choices: Sequence[Choice]) -> int:
    """Enter choices into a user's launch table, whole or not at all; returns the GPU's number of entries."""
    devices = read_user_file()
    entries = devices.setdefault(device, {})
    entries.update({str(choice.key): choice.best for choice in choices})
    text = json.dumps({"devices": devices}, indent=2) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    user_table.cache_clear()
    return len(entries)


def check_gpu() -> torch.device:
    """The GPU to tune. ValueError that says what is missing."""
    if not torch.cuda.is_available():
        raise ValueError("device: no CUDA device is there, and launches are timed on one (--list needs none)")
    device = torch.device("cuda", torch.cuda.current_device())
    if (reason := triton.unavailable(device)) is not None:
        raise ValueError(f"backend: {BACKEND!r} cannot run: {reason}")
    return device


@dataclass
class Gpu:
    """Checks and times launches of one shape through the registered operators."""

    shape: Shape
    dtype: torch.dtype
    device: torch.device
    repeats: int
    threads: int

    def __post_init__(self) -> None:
        shape, device = self.shape, self.device
        hip = torch.version.hip is not None
        self.capability = (0, 0) if hip else torch.cuda.get_device_capability(device)
        properties: Any = torch.cuda.get_device_properties(device) if self.capability >= (9, 0) else None
        self.shared = int(getattr(properties, "shared_memory_per_block_optin", 0))
        self._inputs = self._draw(shape)
        self._short = self._draw(shape._replace(batch=1, length=min(shape.length, 64)))  # enough to compile
        corners = [_corner(x, axis) for x, axis in zip(self._inputs, INPUT_AXES, strict=True)]
        exact = [x.cpu().double() for x in corners]
        results = selfcheck.outputs_and_gradients(shape.recurrence, exact, None)
        self._exact = {"forward": results[:2], "backward": results[2:]}

    def _draw(self, shape: Shape) -> tuple[Tensor, ...]:
        inputs = selfcheck.draw(shape.recurrence, shape.m, shape[2:], self.dtype, self.device)
        roles: tuple[Role, ...] = ("gates", "values", "state", "values", "state")
        return tuple(in_fast_format(x, role) for x, role in zip(inputs, roles, strict=True))

    def key(self, direction: str) -> LaunchKey | None:
        """The key that the operator looks up in the launch table; None if it looks up none."""
        with forced("", None, self.capability) as keys:
            self._call(direction, self._inputs)()
        return next((key for key in keys if key.direction == direction), None)

    def compile(self, direction: str, launches: Sequence[LaunchOrPortable]) -> None:
        """Run every launch once, in threads, which the compiler leaves free; what fails does again when timed."""
        call = self._call(direction, self._short)

        def run(launch: LaunchOrPortable) -> None:
            with (
                contextlib.suppress(Exception),
                torch.cuda.device(self.device),
                forced(direction, launch, self.capability),
            ):
                call()

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(run, launches))
        torch.cuda.synchronize(self.device)

    def milliseconds(self, direction: str, launch: LaunchOrPortable) -> float:
        """Check the numbers of a launch, then time it. RuntimeError if they are wrong."""
        call = self._call(direction, self._inputs)
        with forced(direction, launch, self.capability):
            for result in call():
                result.fill_(float("nan"))  # where the next results will lie
            self._check(direction, call())
            settings: Any = {"device": self.device, "repeats": self.repeats, "budget_ms": 500}
            return time_calls({"": call}, cuda_graph=True, **settings)[""].median

    def _call(self, direction: str, inputs: tuple[Tensor, ...]) -> Callable[[], Sequence[Tensor]]:
        gates, values, state, grad_states, grad_final = inputs
        operators: Any = torch.ops.statemix
        name, rest = self.shape.recurrence, (selfcheck.normalization(self.shape.recurrence), BACKEND)
        scan = partial(getattr(operators, f"{name}_scan"), gates, values, state, None, *rest)
        if direction == "forward":
            return scan
        backward = getattr(operators, f"{name}_scan_backward")
        return partial(backward, gates, values, scan()[0], state, None, grad_states, grad_final, *rest)

    def _check(self, direction: str, results: Sequence[Tensor]) -> None:
        for result, want, axis in zip(results, self._exact[direction], OUTPUT_AXES[direction], strict=True):
            if not bool(torch.isfinite(result).all()):
                raise RuntimeError("not finite")
            error = float(selfcheck.relative_error(_corner(result, axis).cpu(), want))
            bound = selfcheck.BOUNDS[self.dtype]
            if not error <= bound:
                raise RuntimeError(f"error {error:.1e} against float64, expected at most {bound:.0e}")


def _corner(tensor: Tensor, axis: int) -> Tensor:
    """The first and last sequences, and of them the first and last two blocks, which lie along `axis`."""
    count = tensor.shape[axis]
    blocks = sorted({block % count for block in (0, min(1, count - 1), -1, -min(2, count))})
    sequences = sorted({0, tensor.shape[0] - 1})
    return tensor[sequences].index_select(axis, torch.tensor(blocks, device=tensor.device))


@contextlib.contextmanager
def forced(
    direction: str, launch: LaunchOrPortable, capability: tuple[int, int]
) -> Iterator[list[LaunchKey]]:
    """In this thread, one direction's launch instead of what the tables have; yields the keys that are looked up."""
    keys: list[LaunchKey] = []

    def choose(key: LaunchKey, *_: Any) -> LaunchOrPortable:
        keys.append(key)
        return launch if key.direction == direction else default_launch(key, capability)

    with choosing(choose):
        yield keys
