"""SIGINT, SIGTERM and SIGHUP, or a scheduler, ask a run to stop: it finishes its step, saves and returns."""

from __future__ import annotations

import signal
import threading
from contextvars import ContextVar
from types import FrameType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal is gone; some systems do not have it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if HANGUP is None else (HANGUP,)))

LEAVE: ContextVar[threading.Event | None] = ContextVar("LEAVE", default=None)
"""Set by a scheduler in the thread that it gives work to: once the event is set, active runs save and return."""


def leaving() -> bool:
    """Whether the scheduler of this thread has told active runs to stop."""
    event = LEAVE.get()
    return event is not None and event.is_set()


class StopSignals:
    """A context in which the signals set `received` instead of killing; a second one acts as it always did.

    A SIGHUP that is ignored (`nohup`) stays ignored, and further ones do not kill: a terminal that closes may send two.
    Outside the main thread, where Python takes no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}
        self._mask: set[int] | None = None

    @property
    def received(self) -> int | None:
        """The signal that told it to stop (SIGINT for `LEAVE`), or None."""
        return signal.SIGINT if self._number is None and leaving() else self._number

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if (event := LEAVE.get()) is not None:
            event.set()
        self._restore(but=HANGUP)

    def _restore(self, but: int | None = None) -> None:
        for number in self._before.keys() - {but}:
            signal.signal(number, self._before.pop(number))

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            ignored = {HANGUP} if HANGUP is not None and signal.getsignal(HANGUP) is signal.SIG_IGN else set()
            self._before = {n: signal.signal(n, self._handle) for n in SIGNALS if n not in ignored}
            if hasattr(signal, "pthread_sigmask"):  # a process may begin with them blocked
                self._mask = set(signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before))
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
