"""Compiling ahead: what a sweep will train is compiled in processes of its own, so that its workers need not wait.

A step takes a compiler half a minute of one core, again for every other model and task. Compilers keep what they made
on the disk, so whoever compiles it first has done so for all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from benchmarks.training import Runner

from statemix.training import Config, build_device, captures_of
from statemix_research.sweeps.executors import begin, worker_context
from statemix_research.sweeps.store import Job

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
    import torch._inductor.config as compiler  # takes seconds, which nobody else need wait for

    compiler.compile_threads = 1
    config = Config.from_dict(content)
    device = build_device(config)
    Runner(config, captures_of(config.training, device), device).advance(STEPS)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_compiled(job: Job) -> bool:
    """Whether torch's compiler has a part in a job: it has in long trainings on a GPU."""
    if job.kind != "train":
        return False
    config = Config.from_dict(job.content)
    return captures_of(config.training, build_device(config))[0] == "compiled"


def _compile(number: int, work: Compile, content: dict[str, Any]) -> None:
    """What a process does. What goes wrong is told on standard error, and stops nothing."""
    begin(number)
    work(content)


class Ahead:
    """Which jobs may begin: those whose steps have been compiled, by one of `processes` at a time, or could not be.

    With no process every job may begin at once, and what nobody compiles always.
    """

    def __init__(self, jobs: Iterable[Job], processes: int, work: Compile = compile_steps) -> None:
        trainings = [job for job in jobs if is_compiled(job)] if processes else []
        self._builds = {job.key: build_of(job) for job in trainings}
        contents = {self._builds[job.key]: job.content for job in trainings}
        self._left = deque(contents.items())
        self._waited_for = set(contents)
        self._processes, self._work, self._begun = processes, work, 0
        self._under_way: dict[str, BaseProcess] = {}

    @property
    def left(self) -> int:
        """Builds that are not compiled yet."""
        return len(self._waited_for)

    def ready(self, job: Job) -> bool:
        """Whether a job has nothing to wait for."""
        return self._builds.get(job.key) not in self._waited_for

    def look(self) -> None:
        """Take in what has ended, and begin more."""
        for build in [build for build, process in self._under_way.items() if not process.is_alive()]:
            self._under_way.pop(build).close()
            self._waited_for.discard(build)
        while self._left and len(self._under_way) < self._processes:
            build, content = self._left.popleft()
            arguments = (self._begun, self._work, content)
            process = worker_context().Process(target=_compile, args=arguments, daemon=True)
            process.start()
            self._under_way[build] = process
            self._begun += 1

    def close(self) -> None:
        """End what is under way at once; nothing is lost by it."""
        for process in self._under_way.values():
            process.kill()
            process.join()
        self._under_way = {}
