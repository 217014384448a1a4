"""SIGINT, SIGTERM and SIGHUP, or who hands out the work, as a request: the loop finishes its step, saves and leaves."""

from __future__ import annotations

import signal
import threading
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal is gone; some systems do not have it."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if HANGUP is None else (HANGUP,)))

LEAVE: ContextVar[threading.Event | None] = ContextVar("LEAVE", default=None)
"""Put there by whoever hands out work to this thread: once it is set, what is under way saves and leaves."""


def leaving() -> bool:
    """Whether whoever hands out the work has asked to leave."""
    event = LEAVE.get()
    return event is not None and event.is_set()


class Interruption:
    """A context in which the signals set `signal` instead of killing; a second one acts as it always did.

    A SIGHUP that is ignored (`nohup`) stays ignored, and further ones do not kill: a terminal that closes may send two.
    Outside the main thread, where Python takes no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._before: dict[int, Any] = {}
        self._mask: set[int] | None = None

    @property
    def signal(self) -> int | None:
        """The signal that asked (SIGINT for `LEAVE`), or None."""
        return signal.SIGINT if self._signal is None and leaving() else self._signal

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if (event := LEAVE.get()) is not None:
            event.set()
        self._restore(but=HANGUP)

    def _restore(self, but: int | None = None) -> None:
        for number in self._before.keys() - {but}:
            signal.signal(number, self._before.pop(number))

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._ask) for number in SIGNALS if not _ignored_hangup(number)
            }
            if hasattr(signal, "pthread_sigmask"):  # a process may begin with them blocked
                self._mask = set(signal.pthread_sigmask(signal.SIG_UNBLOCK, self._before))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self._mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _ignored_hangup(number: int) -> bool:
    return number == HANGUP and signal.getsignal(number) is signal.SIG_IGN
