"""A sweep: every job of a plan that has not come to its end, once; killed workers' jobs again; failures kept."""

from __future__ import annotations

import itertools
import math
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from statemix_research.sweeps.executors import Cluster, Processes, interruptible
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.store import DAMAGED, DIVERGED, FAILED, FINISHED, Job, Store
from statemix_research.sweeps.work import Outcome, execute, execute_packed

DEATHS = 3
"""A job whose worker has died so often is failed: it may well be what kills them."""

BUNDLE = 8
"""Jobs in a worker's hands for each that it runs side by side: places that fall free are filled from them."""

LOOK = 0.5
"""Seconds between two looks at what runs."""

Work = Callable[[Job, str], Outcome]


@dataclass
class Progress:
    """Where a sweep stands.

    Attributes:
        total: All its jobs.
        found: Jobs that had come to their end before.
        counts: Jobs by status.
        running: The keys of the jobs in workers' hands, and since when.
        trained: Those of them that are trained while others of their bundle are not.
        damaged: What is wrong with the runs that cannot be counted as done: by key, the file and how it is damaged.
        ended: Jobs that came to their end in this sweep.
    """

    total: int
    found: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[str, float] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)
    ended: int = 0
    interrupted: int = 0
    deaths: int = 0
    workers: int = 1
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """Jobs that neither run nor have come to an end."""
        return self.total - sum(self.counts.values()) - len(self.running)

    @property
    def time_left(self) -> float | None:
        """Seconds, if the rest goes on as what is done; None before anything is."""
        done = self.ended + len(self.trained)
        if not done:
            return None
        return (self.left + len(self.running) - len(self.trained)) * (time.monotonic() - self.began) / done


class Ledger(NamedTuple):
    """What a sweep keeps while it runs: jobs that wait for a worker, and how often each one's worker has died."""

    store: Store
    progress: Progress
    waiting: deque[Job]
    deaths: Counter[str]


def run_all(
    jobs: list[Job],
    store: Store,
    executor: Processes | Cluster,
    *,
    retry: bool = False,
    packed: int = 1,
    alone: bool = False,
    **options: Any,
) -> Progress:
    """`run_sweep`, then the timings among the probes one by one; with `alone` all jobs so."""
    untimed = [
        job._replace(probes=tuple(name for name in job.probes if not PROBES[name].is_timing)) for job in jobs
    ]
    if alone or untimed == jobs:
        return run_sweep(jobs, store, executor, retry=retry, packed=packed, alone=alone, **options)
    trained = run_sweep(untimed, store, executor, retry=retry, packed=packed, **options)
    # what failed just now is not tried twice, a timing that failed before is
    again = {job.key for job in untimed if store.status(job) != FAILED} if retry else ()
    timed = run_sweep(jobs, store, executor, retry=again, alone=True, **options)
    timed.found = trained.found
    timed.deaths += trained.deaths
    timed.interrupted += trained.interrupted
    return timed


def run_sweep(
    jobs: list[Job],
    store: Store,
    executor: Processes | Cluster,
    *,
    retry: bool | Collection[str] = False,
    packed: int = 1,
    alone: bool = False,
    until: float = math.inf,
    watch: Callable[[Progress], None] = lambda progress: None,
    work: Work = execute,
) -> Progress:
    """Run what has not come to its end; returns where it ended.

    A failed job is left alone unless `retry`, a damaged one even so. A job whose worker dies is given to another one,
    alone, which goes on from the job's checkpoint, at most `DEATHS` times. On KeyboardInterrupt, SIGTERM and SIGHUP
    (`interruptible`), and when `time.monotonic()` is past `until`, the jobs under way save and leave, and
    KeyboardInterrupt is raised.

    Args:
        retry: Whether failed jobs run again, or the keys of those that do.
        packed: Trainings that one worker runs side by side; more than one pays on GPUs.
        alone: One job at a time.
        watch: Called with the progress at every look.
    """
    if packed < 1:
        raise ValueError(f"packed: got {packed}, expected at least 1")
    ledger = _open(jobs, store, retry)
    progress, waiting = ledger.progress, ledger.waiting
    running: dict[Future[Any], list[Job]] = {}
    side_by_side = 1 if alone else packed
    with interruptible():
        try:
            while waiting or running:
                progress.workers = 1 if alone else executor.workers
                while waiting and len(running) < progress.workers:
                    bundle = _bundle(ledger, side_by_side, progress.workers - len(running))
                    if len(bundle) == 1:
                        future = executor.submit(work, bundle[0], str(store.path))
                    else:
                        future = executor.submit(execute_packed, bundle, str(store.path), packed)
                    running[future] = bundle
                    progress.running |= {job.key: time.monotonic() for job in bundle}
                progress.trained = _trained(running.values(), store)
                watch(progress)
                if time.monotonic() > until:
                    raise KeyboardInterrupt
                for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    if _settle(ledger, future, running.pop(future)):
                        executor.renew(future)
            watch(progress)
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return progress


def _open(jobs: list[Job], store: Store, retry: bool | Collection[str]) -> Ledger:
    progress, waiting = Progress(len(jobs)), deque[Job]()
    for job in jobs:
        found = store.read(job)
        again = retry if isinstance(retry, bool) else job.key in retry
        if found.status in (FINISHED, DIVERGED, DAMAGED) or (found.status == FAILED and not again):
            progress.counts[found.status] += 1
        else:
            waiting.append(job)
        if found.status == DAMAGED:
            progress.damaged[job.key] = found.damage
    progress.found = progress.counts[FINISHED] + progress.counts[DIVERGED]
    return Ledger(store, progress, waiting, Counter())


def _bundle(ledger: Ledger, packed: int, idle: int) -> list[Job]:
    """The next jobs of a worker: what it runs side by side, or half of its share if that is more (the other half goes
    to whoever is done first); one alone if a worker died with it."""
    waiting, count = ledger.waiting, len(ledger.waiting)
    share, half = (-(-count // n) for n in (idle, 2 * ledger.progress.workers))
    most = min(share, max(packed, half), BUNDLE * packed) if packed > 1 else 1
    fresh = itertools.takewhile(lambda job: not ledger.deaths[job.key], waiting)
    bundle = list(itertools.islice(fresh, most)) or [waiting[0]]
    for _ in bundle:
        waiting.popleft()
    return bundle


def _trained(bundles: Iterable[list[Job]], store: Store) -> set[str]:
    """What has been trained of the bundles that are under way."""
    keys = (job.key for bundle in bundles if len(bundle) > 1 for job in bundle)
    return {key for key in keys if (store.folder(key) / "summary.json").exists()}


def _settle(ledger: Ledger, future: Future[Any], bundle: list[Job]) -> bool:
    """Take in how the jobs of a worker ended; returns whether it was told to leave."""
    progress = ledger.progress
    for job in bundle:
        del progress.running[job.key]
    if future.cancelled():
        keys = ", ".join(job.key for job in bundle)
        raise RuntimeError(f"the scheduler gave up {keys}; nothing is lost, the same command goes on")
    error, before = future.exception(), progress.interrupted
    if error is None:
        result = future.result()
        for job, outcome in zip(bundle, result if isinstance(result, list) else [result], strict=True):
            if outcome.status == "interrupted":
                progress.interrupted += 1
                ledger.waiting.append(job)  # a worker that was told to leave: another one goes on
            else:
                progress.ended += 1
                progress.counts[outcome.status] += 1
        return progress.interrupted > before
    died = isinstance(error, BrokenProcessPool)
    progress.deaths += died
    for job in bundle:
        ledger.deaths[job.key] += 1
        if len(bundle) > 1 or (died and ledger.deaths[job.key] < DEATHS):
            ledger.waiting.append(job)  # it is tried again, alone
            continue
        progress.ended += 1
        progress.counts[FAILED] += 1
        text = f"{'its worker died again and again: ' if died else ''}{type(error).__name__}: {error}"
        ledger.store.note(job.key, FAILED, error=text, traceback="".join(traceback.format_exception(error)))
    return False
