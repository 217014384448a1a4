"""Threads that share a kernel's work with their caller, for as long as the interpreter runs.

An executor of the standard library takes no work once the main thread has ended, while other threads and atexit
callbacks may still call a layer. Here the caller takes shares like any worker: what no worker takes, because none
could be started or none is left, it does itself. It waits only for shares that a worker has begun.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

MAX_THREADS = os.cpu_count() or 1


class _Job:
    """Ranges of work items, each taken by whoever comes first."""

    def __init__(self, kernel: Callable[..., None], cuts: list[int], arguments: tuple[Any, ...]) -> None:
        self.kernel, self.arguments = kernel, arguments
        self.shares = deque(zip(cuts[:-1], cuts[1:], strict=True))
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()  # an entry a share

    def work(self) -> None:
        """Take shares until none is left."""
        while True:
            try:
                first, last = self.shares.popleft()
            except IndexError:
                return
            error: BaseException | None = None
            try:
                self.kernel(first, last, *self.arguments)
            except BaseException as raised:  # the caller raises it
                error = raised
            self.done.put(error)


class Workers:
    """Daemon threads, started when they are first needed, that serve one queue of jobs."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._lock = threading.RLock()  # a signal's handler may call a layer too
        self._threads = 0
        self._wanted = 0  # by all callers at this moment

    def run(self, kernel: Callable[..., None], cuts: list[int], arguments: tuple[Any, ...]) -> None:
        """kernel(first, last, *arguments) for every pair of neighbouring cuts, the caller's thread among others."""
        shares = len(cuts) - 1
        helpers = 0 if sys.is_finalizing() else shares - 1
        if helpers < 1:
            for first, last in zip(cuts[:-1], cuts[1:], strict=True):
                kernel(first, last, *arguments)
            return
        job = _Job(kernel, cuts, arguments)
        try:
            for _ in range(min(helpers, self._hire(helpers))):
                self._jobs.put(job)
            job.work()
            errors = [job.done.get() for _ in range(shares)]
        finally:
            self._hire(-helpers)
            job.arguments = ()  # a worker that comes late finds no share, and keeps no tensor alive
        for error in errors:
            if error is not None:
                raise error

    def _hire(self, change: int) -> int:
        """Start as many threads as all callers want now, as far as the system allows; how many there are."""
        with self._lock:
            self._wanted += change
            while self._threads < min(self._wanted, MAX_THREADS):
                thread = threading.Thread(target=self._serve, name=f"statemix-{self._threads}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending, or the system gives no more
                    break
                self._threads += 1
            return self._threads

    def _serve(self) -> None:
        while True:
            self._jobs.get().work()


_workers = Workers()


def _forget() -> None:
    global _workers
    _workers = Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # threads do not survive a fork


def share(kernel: Callable[..., None], cuts: list[int], *arguments: Any) -> None:
    """Run kernel(first, last, *arguments) for every pair of neighbouring cuts, spread over threads."""
    _workers.run(kernel, cuts, arguments)
