"""What a person is told while something is under way, in a log: plain lines, now and then."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

INTERVAL = 30.0
"""Seconds after which a line is due, whatever has been done."""

PATIENCE = 2.0
"""Seconds without a first step after which it is said what it waits for."""

COMPILING = "compiling kernels, a minute at first"

COMPILERS = (
    "numba.core.compiler", "triton.compiler", "torch._inductor.compile_fx", "torch._inductor.async_compile",
    "torch._dynamo.convert_frame", "torch._dynamo.symbolic_convert",
)  # fmt: skip
"""Modules whose functions run only while something is compiled."""


def is_watched() -> bool:
    """Whether standard error is a terminal on which lines may move."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def compiling() -> bool:
    """Whether a compiler of kernels is at work in a thread of this process."""
    return any(map(_compiles, sys._current_frames().values()))


def _compiles(frame: Any) -> bool:
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(COMPILERS) and frame.f_code.co_name != "<module>":  # not while it is imported
            return True
        frame = frame.f_back
    return False


class Pace:
    """When a line is due: at every further tenth of the way, and `INTERVAL` seconds after the last one."""

    def __init__(self, total: int, done: int = 0) -> None:
        self._total, self._tenth, self._told = max(1, total), 0, time.monotonic()
        self._tenth = self._tenths(done)

    def _tenths(self, done: int) -> int:
        return 10 * done // self._total

    def due(self, done: int) -> bool:
        """Whether to say a line now; if so, it counts as said."""
        now, tenth = time.monotonic(), self._tenths(done)
        if tenth == self._tenth and now - self._told < INTERVAL:
            return False
        self._tenth, self._told = tenth, now
        return True


class Lines:
    """A plain line on standard error whenever one is due: `describe()`, as it is then.

    A context. A reader that has left and a full disk silence it; they never stop what is under way.
    """

    def __init__(self, describe: Callable[[], str], total: int, done: int = 0) -> None:
        self._describe, self._pace = describe, Pace(total, done)
        self.done = done
        """How much of the whole; set without `moved`, a line that is due comes within a second."""
        self._first, self._told = done, False
        self._began = time.monotonic()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="statemix progress")

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()

    def moved(self, done: int) -> None:
        """So much of the whole is done: a line now, if one is due."""
        with self._lock:
            self.done = done
            self._look()

    def say(self, line: str) -> None:
        """One line now."""
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    def _look(self) -> None:
        if self._pace.due(self.done):
            self.say(self._describe())

    def _watch(self) -> None:
        """Time passes: the line that is due though nothing has been done, and what the first step waits for."""
        while not self._over.wait(0.5):
            with self._lock:
                self._look()
                waited = time.monotonic() - self._began > PATIENCE
                if waited and not self._told and self.done == self._first and compiling():
                    self._told = True
                    self.say(COMPILING)
