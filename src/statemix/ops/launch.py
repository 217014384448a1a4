"""Launch tables of the GPU kernels: which configuration runs which call. For tuning and benchmarks.

Measured defaults for Hopper, the portable kernels for every other GPU, and a user's own measurements (`statemix tune`)
before either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "MANY_LANES", "MEASURED", "LaunchConfig", "LaunchKey", "choose", "choosing", "default_launch", "is_choosing",
    "read_user_file", "user_file", "user_table",
]  # fmt: skip


class LaunchConfig(NamedTuple):
    """A Hopper kernel's launch: workers and warps of each, steps of a tile, tiles in shared memory, and registers a
    thread before they are redistributed to the workers."""

    num_workers: int
    num_warps: int
    block_t: int
    num_stages: int
    num_registers: int

    @property
    def worker_registers(self) -> int:
        """Registers of a worker's thread once the four idle warps keep 24."""
        busy = max(4, self.num_workers * self.num_warps)
        return min(232, ((4 + busy) * self.num_registers - 4 * 24) // busy // 8 * 8)


class LaunchKey(NamedTuple):
    """What a launch is chosen by: "bdlru" (affine too) or "hlru", "forward" or "backward", m, the bytes of a number,
    and whether there are `many` lanes (rows or channels of all sequences)."""

    kernels: str
    direction: str
    m: int
    bytes: int
    many: bool

    def __str__(self) -> str:
        lanes = "many" if self.many else "few"
        return f"{self.kernels} {self.direction} m={self.m} bytes={self.bytes} lanes={lanes}"


MANY_LANES = 16_384
"""Lanes from which a launch counts as many: they fill the GPU without sharing time finely."""

KERNELS = {"bdlru": "bdlru", "affine": "bdlru", "hlru": "hlru"}
"""By recurrence, whose kernels run it."""

HOPPER: dict[tuple[str, str], dict[int, tuple[LaunchConfig, LaunchConfig]]] = {
    ("bdlru", "forward"): {
        1: (LaunchConfig(2, 2, 32, 3, 128), LaunchConfig(2, 4, 16, 3, 128)),
        2: (LaunchConfig(2, 2, 16, 3, 128), LaunchConfig(2, 4, 8, 3, 128)),
        3: (LaunchConfig(2, 2, 8, 3, 128), LaunchConfig(2, 4, 8, 3, 128)),
        4: (LaunchConfig(2, 2, 8, 4, 128), LaunchConfig(2, 4, 8, 3, 128)),
        7: (LaunchConfig(2, 4, 8, 3, 128), LaunchConfig(2, 4, 8, 3, 128)),
        8: (LaunchConfig(2, 2, 8, 3, 128), LaunchConfig(2, 4, 8, 2, 128)),
        16: (LaunchConfig(2, 2, 4, 4, 128), LaunchConfig(2, 4, 4, 2, 128)),
    },
    ("bdlru", "backward"): {
        1: (LaunchConfig(2, 2, 16, 3, 128), LaunchConfig(2, 4, 8, 3, 128)),
        2: (LaunchConfig(4, 2, 4, 4, 128), LaunchConfig(4, 2, 4, 4, 128)),
        3: (LaunchConfig(2, 4, 8, 3, 128), LaunchConfig(2, 4, 4, 3, 128)),
        4: (LaunchConfig(4, 2, 2, 4, 128), LaunchConfig(2, 4, 4, 3, 128)),
        7: (LaunchConfig(2, 4, 4, 3, 128), LaunchConfig(2, 4, 4, 3, 128)),
        8: (LaunchConfig(2, 2, 4, 3, 128), LaunchConfig(2, 4, 2, 3, 128)),
        16: (LaunchConfig(2, 2, 2, 4, 128), LaunchConfig(2, 4, 1, 4, 128)),
    },
    ("hlru", "forward"): {
        4: (LaunchConfig(4, 2, 8, 3, 128), LaunchConfig(4, 2, 8, 3, 128)),
        8: (LaunchConfig(4, 2, 4, 3, 128), LaunchConfig(4, 2, 4, 3, 128)),
        16: (LaunchConfig(2, 2, 4, 3, 128), LaunchConfig(2, 4, 4, 2, 128)),
    },
    ("hlru", "backward"): {
        4: (LaunchConfig(4, 2, 2, 4, 128), LaunchConfig(4, 2, 4, 3, 128)),
        8: (LaunchConfig(2, 2, 4, 3, 128), LaunchConfig(2, 2, 4, 3, 128)),
        16: (LaunchConfig(2, 2, 2, 4, 128), LaunchConfig(2, 2, 2, 3, 128)),
    },
}
"""By kernels and direction, for m up to the number given: with few lanes, with many. Larger m: portable kernels."""

MEASURED = {(9, 0): HOPPER}
"""The table of each compute capability that was measured."""


def default_launch(key: LaunchKey, capability: tuple[int, int]) -> LaunchConfig | None:
    """The measured launch for a key on a GPU of a compute capability, or None: take the portable kernels."""
    rows = MEASURED.get(capability, {}).get((key.kernels, key.direction), {})
    found = next((entry for limit, entry in rows.items() if key.m <= limit), None)
    return None if found is None else found[key.many]


def user_file() -> Path:
    """Where `statemix tune` keeps its measurements: $STATEMIX_LAUNCH_TABLE, or a file in the user's configuration."""
    chosen = os.environ.get("STATEMIX_LAUNCH_TABLE")
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(chosen) if chosen else Path(home) / "statemix" / "launch.json"


FORMER_NAMES = {"block": "bdlru", "order": "hlru"}
"""How keys began in files of version 0.1."""

Entries = dict[str, "LaunchConfig | None"]
"""A key as text -> its launch, or None for the portable kernels."""


def _parse_launch(launch: Any) -> LaunchConfig | None:
    """A launch as it is saved: by the names of its fields, as five numbers (version 0.1), or None."""
    if launch is None:
        return None
    fields = launch if isinstance(launch, dict) else dict(zip(LaunchConfig._fields, launch, strict=True))
    return LaunchConfig(**{name: int(number) for name, number in fields.items()})


def _parse_entries(saved: dict[str, Any]) -> Entries:
    """Entries as they are saved; of two for one key that with the present name counts."""
    entries: Entries = {}
    for key, launch in saved.items():
        name, _, rest = key.partition(" ")
        if name in FORMER_NAMES:
            entries.setdefault(f"{FORMER_NAMES[name]} {rest}", _parse_launch(launch))
        else:
            entries[key] = _parse_launch(launch)
    return entries


def read_user_file() -> dict[str, Entries]:
    """The entries of the user's file, by the name of the GPU; none without the file.

    Errors: ValueError if the file is not what `statemix tune` writes.
    """
    path = user_file()
    if not path.is_file():
        return {}
    try:
        devices = json.loads(path.read_text(encoding="utf-8"))["devices"]
        return {device: _parse_entries(saved) for device, saved in devices.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a launch table ({error!r}); remove it, then `statemix tune` can make another"
        ) from error


@lru_cache(maxsize=8)
def user_table(device: str) -> Entries:
    """A user's own entries for a GPU by name, read once. Errors: as `read_user_file`."""
    return read_user_file().get(device, {})


Chooser = Callable[[LaunchKey, str, tuple[int, int]], "LaunchConfig | None"]
"""(key, name of the GPU, its compute capability) -> launch, or None: take the portable kernels."""


_CHOOSER: ContextVar[Chooser | None] = ContextVar("chooser", default=None)


def choose(key: LaunchKey, device: str, capability: tuple[int, int]) -> LaunchConfig | None:
    """The launch for a key: the user's entry for this GPU, else the measured default, else None (portable)."""
    if chooser := _CHOOSER.get():
        return chooser(key, device, capability)
    own = user_table(device)
    return own[str(key)] if str(key) in own else default_launch(key, capability)


def is_choosing() -> bool:
    """Whether this is inside `choosing`."""
    return _CHOOSER.get() is not None


@contextmanager
def choosing(chooser: Chooser) -> Iterator[None]:
    """Within this context and in this thread, `chooser` decides all launches instead of the tables."""
    before = _CHOOSER.set(chooser)
    try:
        yield
    finally:
        _CHOOSER.reset(before)
