"""Threads that share a kernel's work with their caller, for as long as the interpreter runs.

An executor takes no work once the main thread has ended, while other threads and atexit callbacks may still call a
layer. So the caller takes shares like any worker, and waits only for those that a worker has begun.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

MAX_THREADS = os.cpu_count() or 1


class Workers:
    """An executor that no caller depends on."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="statemix")
        self._lock = threading.Lock()

    def run(self, kernel: Callable[..., None], cuts: list[int], arguments: tuple[Any, ...]) -> None:
        """kernel(first, last, *arguments) for every pair of neighbouring cuts, the caller's thread among others."""
        shares = deque((first, last, *arguments) for first, last in zip(cuts[:-1], cuts[1:], strict=True))
        count, done = len(shares), SimpleQueue[BaseException | None]()

        def work() -> None:
            while True:
                try:
                    share = shares.popleft()  # late workers find none, and keep no tensor alive
                except IndexError:
                    return
                error: BaseException | None = None
                try:
                    kernel(*share)
                except BaseException as raised:  # the caller raises it
                    error = raised
                del share
                done.put(error)

        self._hire(work, count - 1)
        work()
        for error in [done.get() for _ in range(count)]:
            if error is not None:
                raise error

    def _hire(self, work: Callable[[], None], helpers: int) -> None:
        """Let as many workers begin as the system allows; none in a signal's handler that interrupted this."""
        if not self._lock.acquire(timeout=0.01):
            return
        try:
            for _ in range(helpers):
                self._pool.submit(work)
        except RuntimeError:  # the interpreter is ending, or the system gives no more threads
            pass
        finally:
            self._lock.release()


_workers = Workers()


def _forget() -> None:
    global _workers
    _workers = Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # threads do not survive a fork


def share(kernel: Callable[..., None], cuts: list[int], *arguments: Any) -> None:
    """Run kernel(first, last, *arguments) for every pair of neighbouring cuts, spread over threads."""
    _workers.run(kernel, cuts, arguments)
