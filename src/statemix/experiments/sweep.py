"""A sweep: every job of a plan that has not come to its end, once; killed workers' jobs again; failures kept."""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from statemix.experiments.executors import Cluster, Processes
from statemix.experiments.store import DIVERGED, FAILED, FINISHED, Job, Store
from statemix.experiments.work import Outcome, execute

DEATHS = 3
"""A job whose worker has died so often is failed: it may well be what kills them."""

LOOK = 0.5
"""Seconds between two looks at what runs."""

Work = Callable[[Job, str], Outcome]


class Progress:
    """Where a sweep stands."""

    def __init__(self, done: int, failed: int, diverged: int, total: int) -> None:
        self.found = done
        """Jobs that had come to their end before."""
        self.counts = Counter({FINISHED: done - diverged, DIVERGED: diverged, FAILED: failed})
        self.total = total
        self.running: dict[str, float] = {}
        """The keys of what runs, and since when."""
        self.seconds: list[float] = []
        """How long each job of this sweep took."""
        self.interrupted = 0
        self.deaths = 0
        self.workers = 1

    @property
    def left(self) -> int:
        """Jobs that neither run nor have come to an end."""
        return self.total - sum(self.counts.values()) - len(self.running)

    @property
    def time_left(self) -> float | None:
        """Seconds, if the rest takes as long as what is done; None before anything is."""
        if not self.seconds:
            return None
        mean, now = sum(self.seconds) / len(self.seconds), time.monotonic()
        begun = sum(min(mean, now - since) for since in self.running.values())
        return (mean * (self.left + len(self.running)) - begun) / max(1, self.workers)


def jobs_of(cells: Iterable[Any]) -> list[Job]:
    """The jobs of cells, each once, with everything that any cell wants measured."""
    jobs: dict[str, Job] = {}
    for cell in cells:
        job = cell.job
        before = jobs.get(job.key, job).measures
        jobs[job.key] = job._replace(measures=tuple(dict.fromkeys((*before, *job.measures))))
    return list(jobs.values())


def run_sweep(
    jobs: list[Job],
    store: Store,
    executor: Processes | Cluster,
    *,
    retry: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
    work: Work = execute,
) -> Progress:
    """Run what is not at its end; returns where it ended. A failed job is left alone unless `retry`.

    A job whose worker dies is given to another one, which goes on from the job's checkpoint, at most `DEATHS`
    times. On KeyboardInterrupt the jobs under way save and leave, and the interrupt is raised again.
    """
    progress, waiting = _plan(jobs, store, retry)
    deaths: Counter[str] = Counter()
    running: dict[Future[Outcome], Job] = {}
    try:
        while waiting or running:
            progress.workers = executor.workers
            while waiting and len(running) < progress.workers:
                job = waiting.popleft()
                running[executor.submit(work, job, str(store.path))] = job
                progress.running[job.key] = time.monotonic()
            watch(progress)
            for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                _settle(future, running.pop(future), store, progress, deaths, waiting)
        watch(progress)
    except BaseException:
        executor.shutdown(wait=True, cancel_futures=True)
        raise
    return progress


def _plan(jobs: list[Job], store: Store, retry: bool) -> tuple[Progress, deque[Job]]:
    waiting, counts = deque[Job](), Counter[str]()
    for job in jobs:
        status = store.status(job)
        if status in (FINISHED, DIVERGED) or (status == FAILED and not retry):
            counts[status] += 1
        else:
            waiting.append(job)
    done = counts[FINISHED] + counts[DIVERGED]
    return Progress(done, counts[FAILED], counts[DIVERGED], len(jobs)), waiting


def _settle(
    future: Future[Outcome],
    job: Job,
    store: Store,
    progress: Progress,
    deaths: Counter[str],
    waiting: deque[Job],
) -> None:
    """Take in how a job ended."""
    del progress.running[job.key]
    if future.cancelled():
        raise RuntimeError(f"the scheduler gave up run {job.key}; nothing is lost, the same command goes on")
    error = future.exception()
    if error is None:
        outcome = future.result()
        progress.seconds.append(outcome.seconds)
        if outcome.status == "interrupted":
            progress.interrupted += 1
            waiting.append(job)  # a worker that was asked to leave: another one goes on
        else:
            progress.counts[outcome.status] += 1
        return
    progress.deaths += 1
    deaths[job.key] += 1
    if isinstance(error, BrokenProcessPool) and deaths[job.key] < DEATHS:
        waiting.append(job)
        return
    text = f"its worker died again and again: {type(error).__name__}: {error}"
    store.note(job.key, FAILED, error=text, traceback="".join(traceback.format_exception(error)))
    progress.counts[FAILED] += 1
