"""The launch table: which kernel runs what, with which sizes. Measured defaults for Hopper, the portable kernels for
every other GPU, and a user's own measurements (`statemix tune`) before either."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple


class Turns(NamedTuple):
    """How a kernel that takes turns is launched: `workers` of `warps` warps, tiles of `steps` steps, `stages` of them
    in shared memory, and the registers a thread has before they are redistributed to the workers."""

    workers: int
    warps: int
    steps: int
    stages: int
    registers: int

    @property
    def worker_registers(self) -> int:
        """Registers of a worker's thread once the four idle warps keep 24."""
        busy = max(4, self.workers * self.warps)
        return min(232, ((4 + busy) * self.registers - 4 * 24) // busy // 8 * 8)


class Key(NamedTuple):
    """What a launch is chosen by: "block" or "order" (H-LRU), "forward" or "backward", m, the bytes of a number, and
    whether there are `many` lanes (rows or channels of all sequences)."""

    kind: str
    direction: str
    m: int
    bytes: int
    many: bool

    def __str__(self) -> str:
        lanes = "many" if self.many else "few"
        return f"{self.kind} {self.direction} m={self.m} bytes={self.bytes} lanes={lanes}"


MANY = 16_384
"""Lanes from which a launch counts as many: they fill the GPU without sharing time finely."""

KINDS = {"bdlru": "block", "affine": "block", "hlru": "order"}

HOPPER: dict[tuple[str, str], dict[int, tuple[Turns, Turns]]] = {
    ("block", "forward"): {
        1: (Turns(2, 2, 32, 3, 128), Turns(2, 4, 16, 3, 128)),
        2: (Turns(2, 2, 16, 3, 128), Turns(2, 4, 8, 3, 128)),
        3: (Turns(2, 2, 8, 3, 128), Turns(2, 4, 8, 3, 128)),
        4: (Turns(2, 2, 8, 4, 128), Turns(2, 4, 8, 3, 128)),
        7: (Turns(2, 4, 8, 3, 128), Turns(2, 4, 8, 3, 128)),
        8: (Turns(2, 2, 8, 3, 128), Turns(2, 4, 8, 2, 128)),
        16: (Turns(2, 2, 4, 4, 128), Turns(2, 4, 4, 2, 128)),
    },
    ("block", "backward"): {
        1: (Turns(2, 2, 16, 3, 128), Turns(2, 4, 8, 3, 128)),
        2: (Turns(4, 2, 4, 4, 128), Turns(4, 2, 4, 4, 128)),
        3: (Turns(2, 4, 8, 3, 128), Turns(2, 4, 4, 3, 128)),
        4: (Turns(4, 2, 2, 4, 128), Turns(2, 4, 4, 3, 128)),
        7: (Turns(2, 4, 4, 3, 128), Turns(2, 4, 4, 3, 128)),
        8: (Turns(2, 2, 4, 3, 128), Turns(2, 4, 2, 3, 128)),
        16: (Turns(2, 2, 2, 4, 128), Turns(2, 4, 1, 4, 128)),
    },
    ("order", "forward"): {
        4: (Turns(4, 2, 8, 3, 128), Turns(4, 2, 8, 3, 128)),
        8: (Turns(4, 2, 4, 3, 128), Turns(4, 2, 4, 3, 128)),
        16: (Turns(2, 2, 4, 3, 128), Turns(2, 4, 4, 2, 128)),
    },
    ("order", "backward"): {
        4: (Turns(4, 2, 2, 4, 128), Turns(4, 2, 4, 3, 128)),
        8: (Turns(2, 2, 4, 3, 128), Turns(2, 2, 4, 3, 128)),
        16: (Turns(2, 2, 2, 4, 128), Turns(2, 2, 2, 3, 128)),
    },
}
"""By recurrence and direction, for m up to the number given: with few lanes, with many. Larger m: portable kernels."""

MEASURED = {(9, 0): HOPPER}
"""The table of each compute capability that was measured."""


def default(key: Key, capability: tuple[int, int]) -> Turns | None:
    """The measured launch for a key on a GPU of a compute capability, or None: take the portable kernels."""
    rows = MEASURED.get(capability, {}).get((key.kind, key.direction), {})
    found = next((entry for limit, entry in rows.items() if key.m <= limit), None)
    return None if found is None else found[key.many]


def user_file() -> Path:
    """Where `statemix tune` keeps its measurements: $STATEMIX_LAUNCH_TABLE, or a file in the user's configuration."""
    chosen = os.environ.get("STATEMIX_LAUNCH_TABLE")
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(chosen) if chosen else Path(home) / "statemix" / "launch.json"


@lru_cache(maxsize=8)
def user_table(device: str) -> dict[str, Turns | None]:
    """A user's own entries for a GPU by name, read once: key as text -> launch, or None for the portable kernels.

    Errors: ValueError if the file is not what `statemix tune` writes.
    """
    path = user_file()
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["devices"].get(device, {})
        return {key: None if launch is None else Turns(*map(int, launch)) for key, launch in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a launch table ({error!r}); remove it, then `statemix tune` can make another"
        ) from error


OVERRIDE: ContextVar[Callable[[Key], Turns | None] | None] = ContextVar("launch", default=None)
"""In a thread where it is set, gives every launch instead of the tables: how `statemix tune` tries candidates."""


def choose(key: Key, device: str, capability: tuple[int, int]) -> Turns | None:
    """The launch for a key: the user's entry for this GPU, else the measured default, else None (portable)."""
    if (override := OVERRIDE.get()) is not None:
        return override(key)
    own = user_table(device)
    return own[str(key)] if str(key) in own else default(key, capability)
