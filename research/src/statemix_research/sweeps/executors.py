"""Where jobs run: processes of this machine, or the workers of a Dask scheduler. Both are plain `Executor`s."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import uuid
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from typing import Any

import torch

from statemix.extras import missing
from statemix.training import HANGUP, LEAVE, ignore_compiler_warnings

PACKED = 8
"""Trainings side by side on one GPU."""

CONNECT = 5
"""Seconds that a scheduler may take to answer."""

BEGIN, SAVE = 60, 120
"""Seconds that a process may take to begin, and the jobs of a scheduler's workers to save, before they are left."""

GROUP = {signal.SIGTERM} if HANGUP is None else {signal.SIGTERM, HANGUP}
"""Signals that may come to a driver and all its processes at once: of a batch system, of a terminal that closes."""

PRELOADED = ["statemix_research.sweeps.work", "torch._dynamo", "numba"]
"""What workers on a CPU need, and take seconds to import (an optimiser of torch imports its compiler)."""


def worker_context() -> Any:
    """Workers are forked off a server that has imported what they need; anew beside a GPU, whose driver survives no
    fork."""
    if torch.cuda.is_available() or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    for server in (resource_tracker, forkserver):  # the former unblocks SIGTERM when it begins
        with _blocked():
            server.ensure_running()
    return context


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """A process that is started here takes no `GROUP` signal before it unblocks them (`begin`): a server of forks that
    died of one would cut its driver off from workers that are saving."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Processes(Executor):
    """`workers` processes, each a pool of its own: one that is killed takes nothing but its own job with it.

    A job goes to the process with the fewest jobs. A future whose process died ends with BrokenProcessPool; the
    next submission finds a new process in its place. Processes leave at once when this one dies.
    """

    def __init__(self, workers: int) -> None:
        """ValueError below one worker."""
        if workers < 1:
            raise ValueError(f"workers: got {workers}, expected at least 1")
        self.workers = workers
        self._slots: dict[int, tuple[ProcessPoolExecutor, Future[int]]] = {}
        self._busy = Counter[int]()
        self._slot_of = weakref.WeakKeyDictionary[Future[Any], int]()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As every executor's."""
        slot = min(range(self.workers), key=lambda one: self._busy[one])
        try:
            future = self._pool(slot).submit(fn, *args, **kwargs)
        except BrokenProcessPool:  # it died idle, or with its last job
            self._leave(slot)
            future = self._pool(slot).submit(fn, *args, **kwargs)
        self._busy[slot] += 1
        self._slot_of[future] = slot
        future.add_done_callback(lambda _: self._busy.subtract([slot]))
        return future

    def renew(self, future: Future[Any]) -> None:
        """The process that had this job was told to leave, and would do no other: the next job finds a new one."""
        self._leave(self._slot_of[future])

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        if slot not in self._slots:
            pool = ProcessPoolExecutor(1, mp_context=worker_context(), initializer=begin, initargs=(slot,))
            self._slots[slot] = pool, pool.submit(os.getpid)
        return self._slots[slot][0]

    def _leave(self, slot: int) -> None:
        if slot in self._slots:
            self._slots.pop(slot)[0].shutdown(wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor's; with `cancel_futures` the jobs under way are told to save and leave (SIGINT)."""
        slots, self._slots = list(self._slots.values()), {}
        for _, pid in slots if cancel_futures else ():
            with contextlib.suppress(Late, CancelledError, BrokenProcessPool, ProcessLookupError):
                os.kill(pid.result(BEGIN), signal.SIGINT)
        for pool, _ in slots:
            pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def begin(slot: int) -> None:
    """One thread, one GPU of those there are, Ctrl-C a request to leave, and an end when the parent is gone.

    SIGTERM is such a request too. A SIGHUP is for the driver, which asks. What compilers say of themselves is silenced
    here too: trainings side by side undo one another's filters.
    """
    ignore_compiler_warnings()
    leave = threading.Event()
    LEAVE.set(leave)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: leave.set())
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP)
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(slot % torch.cuda.device_count())
    threading.Thread(target=_leave_with_parent, daemon=True).start()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt in this context, as SIGINT does; a second SIGTERM kills.

    A signal that is ignored (SIGHUP by `nohup`) or has another handler is left as it is, and outside the main thread,
    where Python takes no handlers, both are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in GROUP if signal.getsignal(number) is signal.SIG_DFL]

    def leave(number: int, frame: object) -> None:
        for one in taken:  # a terminal that closes may send its signal twice
            signal.signal(one, signal.SIG_IGN if one == HANGUP else signal.SIG_DFL)
        raise KeyboardInterrupt

    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


class Cluster(Executor):
    """The workers of a Dask scheduler (tcp://…). They need this package and the store under the same path.

    Start workers with one thread each: the runs of one process come one after another anyway. Errors: ImportError
    for the missing extra, OSError when no scheduler answers.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ImportError(missing("distributed")) from None
        self._client = Client(address, timeout=CONNECT, set_as_default=False)
        self._executor = self._client.get_executor(pure=False)
        self._name = uuid.uuid4().hex
        self._jobs = set[Future[Any]]()

    @property
    def workers(self) -> int:
        """How many there are now, at least 1 (more may come)."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As every executor's."""
        future: Future[Any] = self._executor.submit(_run_leaving, self._name, fn, *args, **kwargs)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    def renew(self, future: Future[Any]) -> None:
        """Nothing: a worker that left a job takes others."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As every executor's; with `cancel_futures` the jobs under way are told to save and leave. The scheduler and
        its workers stay."""
        if cancel_futures:
            self._client.run(_leave, self._name, on_error="ignore")
            wait_for(set(self._jobs), timeout=SAVE)
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()


_told = defaultdict[str, threading.Event](threading.Event)
"""In a scheduler's worker: what tells the jobs of a driver to leave."""


def _leave(driver: str) -> None:
    _told[driver].set()


def _run_leaving(driver: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """On a scheduler's worker: `fn`, which is told to leave once `_leave` has run there."""
    before = LEAVE.set(_told[driver])
    try:
        return fn(*args, **kwargs)
    finally:
        LEAVE.reset(before)


def executor_of(workers: int | None, scheduler: str | None) -> Processes | Cluster:
    """A cluster's executor when a scheduler is named, else so many processes (default: one per core, or per GPU)."""
    if scheduler is not None:
        if workers is not None:
            raise ValueError("workers: a scheduler has its own, expected --workers or --scheduler, not both")
        return Cluster(scheduler)
    if workers is None and torch.cuda.is_available():
        workers = torch.cuda.device_count()
    elif workers is None:  # of the cores those that this process may use
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processes(workers)


def default_packed(scheduler: str | None) -> int:
    """How many trainings a worker runs side by side: several on a GPU of this machine, else one."""
    return PACKED if scheduler is None and torch.cuda.is_available() else 1
