"""Progress in a log: plain lines on standard error, now and then."""

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
"""Seconds without a first step after which a line says that kernels are being compiled."""

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


class Lines:
    """A plain line on standard error, `describe()`, at every further tenth of `total` and every `INTERVAL` seconds.

    A context. A broken pipe and a full disk silence it; they never stop the work.
    """

    def __init__(self, describe: Callable[[], str], total: int, done: int = 0) -> None:
        self._describe, self._total, self._first = describe, max(1, total), done
        self.done = done
        """How much of the whole; set without `moved`, a line that is due comes within a second."""
        self._begun = self._last = time.monotonic()
        self._tenth, self._compiling_said = 10 * done // self._total, False
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
            self._print_if_due()

    def is_due(self) -> bool:
        """Whether to print a line now; if so, it counts as printed."""
        now, tenth = time.monotonic(), 10 * self.done // self._total
        if tenth == self._tenth and now - self._last < INTERVAL:
            return False
        self._tenth, self._last = tenth, now
        return True

    def _print_if_due(self) -> None:
        if self.is_due():
            self._print(self._describe())

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)

    def _watch(self) -> None:
        """Print the line that is due though nothing has moved, and that the first step waits for a compiler."""
        while not self._over.wait(0.5):
            with self._lock:
                self._print_if_due()
                waiting = self.done == self._first and time.monotonic() - self._begun > PATIENCE
                if waiting and not self._compiling_said and compiling():
                    self._compiling_said = True
                    self._print(COMPILING)
