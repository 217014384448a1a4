"""Which launch is fastest on this GPU: candidates as data, the choice among them, and the user's launch table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.cases import Case
from benchmarks.files import write_json
from statemix.ops.triton.table import Key, Turns, default, user_table

WORKERS_AND_WARPS = ((2, 1), (2, 2), (2, 4), (4, 1), (4, 2))

STEPS: dict[tuple[str, int], tuple[int, ...]] = {
    ("forward", 2): (4, 8, 16, 32),
    ("forward", 7): (4, 8, 16),
    ("forward", 16): (2, 4, 8),
    ("backward", 2): (2, 4, 8, 16),
    ("backward", 7): (2, 4, 8),
    ("backward", 16): (1, 2, 4),
}
"""Steps of a tile, by direction and the largest m that the entry is for."""

STAGES = (2, 3, 4)

REGISTERS = {1: (80, 128), 16: (128,)}
"""Registers of a thread, by the largest m that the entry is for."""

REGISTER_FILE = 65_536
"""Registers of a multiprocessor; a program has four idle warps and at least four busy ones."""

MARGIN = 0.01
"""A launch that is faster than the default by less than this part is not worth an entry: the default is entered."""

DIRECTIONS = ("forward", "backward")

Launch = Turns | None
"""None stands for the portable kernels."""


def _upto(table: dict[int, tuple[int, ...]], m: int) -> tuple[int, ...]:
    return next((entry for limit, entry in table.items() if m <= limit), ())


def shared_bytes(key: Key, launch: Turns) -> int:
    """What a launch takes in shared memory: the rings of every worker, and the boards (barriers left aside)."""
    rows = launch.steps + (key.m - 1 if key.kind == "order" else 0)
    planes = launch.steps * (key.m + 2)
    if key.direction == "backward":
        planes = launch.steps * (key.m + 3) + (1 << (rows - 1).bit_length())
    lanes = launch.workers * launch.warps * 32
    carried = key.m if key.kind == "order" else 1
    return lanes * (planes * launch.stages * key.bytes + carried * 4)


def candidates(key: Key, shared: int, turns: bool = True) -> list[Launch]:
    """The launches worth a measurement, of a GPU whose programs have `shared` bytes; without `turns`, portable ones."""
    if not turns:
        return [None]
    steps = _upto({m: entry for (direction, m), entry in STEPS.items() if direction == key.direction}, key.m)
    grid = (
        Turns(workers, warps, u, stages, registers)
        for workers, warps in WORKERS_AND_WARPS
        for u in steps
        for stages in STAGES
        for registers in _upto(REGISTERS, key.m)
    )
    fits = [
        launch
        for launch in grid
        if shared_bytes(key, launch) <= shared
        and (4 + max(4, launch.workers * launch.warps)) * 32 * launch.registers <= REGISTER_FILE
    ]
    return [*fits, None]


class Measurer(Protocol):
    """A GPU that launches of one case can be tried on."""

    device: str
    capability: tuple[int, int]
    shared: int
    turns: bool

    def key(self, direction: str) -> Key | None:
        """What the case's launch is chosen by; None if there is no choice."""

    def compile(self, direction: str, launches: Sequence[Launch]) -> None:
        """Get the launches ready, as many at a time as the machine can."""

    def milliseconds(self, direction: str, launch: Launch) -> float:
        """The time of a launch. RuntimeError if it cannot run, or computes wrong numbers."""


class Choice(NamedTuple):
    """The outcome for one case and direction: milliseconds of the default and of the best, and what was left out."""

    case: Case
    key: Key
    default: Launch
    default_ms: float | None
    best: Launch
    best_ms: float
    tried: int
    failed: dict[Launch, str]

    @property
    def gain(self) -> float | None:
        """How many times as fast as the default; None if the default failed."""
        return None if self.default_ms is None else self.default_ms / self.best_ms


def choose_best(case: Case, direction: str, measurer: Measurer) -> Choice | None:
    """Measure the default and every candidate. None if nothing can be chosen; RuntimeError if every launch failed."""
    key = measurer.key(direction)
    if key is None:
        return None
    usual = default(key, measurer.capability)
    launches = list(dict.fromkeys([usual, *candidates(key, measurer.shared, measurer.turns)]))
    measurer.compile(direction, launches)
    times: dict[Launch, float] = {}
    failed: dict[Launch, str] = {}
    for launch in launches:
        try:
            times[launch] = measurer.milliseconds(direction, launch)
        except RuntimeError as error:
            failed[launch] = " ".join(str(error).split())[:300]
    if not times:
        raise RuntimeError(f"{key}: no launch of {len(launches)} is right, the first: {failed[usual]}")
    best = min(times, key=times.__getitem__)
    if usual in times and times[best] > (1 - MARGIN) * times[usual]:
        best = usual
    return Choice(case, key, usual, times.get(usual), best, times[best], len(launches), failed)


def run(cases: list[Case], measurer_of: Callable[[Case], Measurer]) -> Iterator[Choice]:
    """The choice for every case and direction that has one."""
    for case in cases:
        measurer = measurer_of(case)
        for direction in DIRECTIONS:
            choice = choose_best(case, direction, measurer)
            if choice is not None:
                yield choice


def save(path: Path, device: str, choices: Sequence[Choice]) -> int:
    """Enter choices into a user's launch table beside what is there, whole or not at all; how many entries it has.

    Errors: ValueError if the file is there and is no launch table.
    """
    devices = read_devices(path)
    own = devices.setdefault(device, {})
    own.update({str(choice.key): None if choice.best is None else list(choice.best) for choice in choices})
    write_json(path, {"devices": devices})
    user_table.cache_clear()
    return len(own)


def read_devices(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a user's launch table by device; none without the file. ValueError if it is something else."""
    if not path.is_file():
        return {}
    try:
        devices = json.loads(path.read_text(encoding="utf-8"))["devices"]
        launches = [launch for entries in devices.values() for launch in entries.values()]
        [Turns(*map(int, launch)) for launch in launches if launch is not None]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a launch table ({error!r}); remove it and run again") from error
    return dict(devices)
