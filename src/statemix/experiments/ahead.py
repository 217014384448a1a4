"""Compiling ahead: what a sweep will train is compiled in processes of its own, so that its workers need not wait.

A step takes a compiler half a minute of one core, again for every other model and task. Compilers keep what they made
on the disk, so whoever compiles it first has done so for all.
"""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import torch

from statemix.bench.clock import free
from statemix.bench.training import Runner
from statemix.experiments.executors import Processes
from statemix.experiments.store import Job
from statemix.training import Config
from statemix.training.build import captures_of, device_of

STEPS = 5
"""Steps that are taken, and thrown away."""

FREE = {"mixer": ("transition_bias", "gate_bias"), "training": ("lr", "seed", "weight_decay")}
"""What may differ between runs that share their compiled steps."""

Compile = Callable[[dict[str, Any]], object]


def build_of(job: Job) -> str:
    """The part of a training's configuration on which its compiled steps depend."""
    sections = {
        section: {k: v for k, v in job.content[section].items() if k not in FREE.get(section, ())}
        for section in ("task", "mixer", "model", "training")
    }
    return json.dumps(sections, sort_keys=True)


def compile_steps(content: dict[str, Any]) -> None:
    """Take a run's first steps, in the first way that works here, and forget them."""
    from torch._inductor import config as compiler  # seconds, which whoever only looks at results need not wait

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is lost when it is asked to leave
    compiler.compile_threads = 1
    config = Config.from_dict(content)
    device = device_of(config)
    runner = Runner(config, captures_of(config.training, device), device)
    runner.advance(STEPS)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    del runner
    free(device)


class Ahead:
    """Which jobs may begin: those whose steps have been compiled, by one of `processes`, or could not be.

    With no process every job may begin at once.
    """

    def __init__(self, jobs: Iterable[Job], processes: int, work: Compile = compile_steps) -> None:
        trainings = [job for job in jobs if job.kind == "train"] if processes else []
        self._builds = {job.key: build_of(job) for job in trainings}
        self._left = deque({self._builds[job.key]: job.content for job in reversed(trainings)}.items())
        self._left.reverse()  # in the order in which they are first needed
        self._waited_for = {build for build, _ in self._left}
        self._processes, self._work = processes, work
        self._executor = Processes(processes) if self._left else None
        self._under_way: dict[Future[Any], str] = {}

    @property
    def left(self) -> int:
        """Builds that are not compiled yet."""
        return len(self._waited_for)

    def ready(self, job: Job) -> bool:
        """Whether a job has nothing to wait for."""
        return self._builds.get(job.key) not in self._waited_for

    def look(self) -> None:
        """Take in what has ended, and give the processes more."""
        for future in [one for one in self._under_way if one.done()]:
            self._waited_for.discard(
                self._under_way.pop(future)
            )  # a failure will be met, and told, by the worker
        while self._left and self._executor is not None and len(self._under_way) < self._processes:
            build, content = self._left.popleft()
            self._under_way[self._executor.submit(self._work, content)] = build
        if not self._under_way:
            self.close()

    def close(self) -> None:
        """Let the processes go, whatever they do."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
