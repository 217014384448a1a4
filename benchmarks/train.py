"""Training steps of a small model: launched, captured, compiled, and several runs concurrently on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.measure import as_record, attempt
from benchmarks.records import Record, header
from statemix.timing import summarize
from statemix.training import Config, build_state, build_step, build_task, resolve_config

WHAT = (
    "Milliseconds of one optimiser step, wall clock over `steps` steps from an idle device to an idle device: batch, "
    "forward, backward, clip, AdamW, running sums; no evaluation and no checkpoint. ready_s: data, model, compilation "
    "and capture. packed: concurrent runs on one device, a few steps of each at a time. kernels: torch.profiler over "
    "captured steps."
)

RUN_STEPS = 20_000
"""Steps of a whole run in arXiv 2602.12021."""

ROUND_STEPS = 20
"""Steps that one of several concurrent runs takes before the next one does."""

MODES = {"cuda": ("off", "graph", "compiled"), "cpu": ("off",)}
"""Ways to run steps by type of device; concurrent runs take the last one that works."""


class Setting(NamedTuple):
    """What is measured: settings over the preset, and how often."""

    settings: tuple[str, ...]
    preset: str
    device: torch.device
    steps: int
    repeats: int


class Runner:
    """One run without a folder: its steps, in the first mode that works, on a CUDA stream of its own."""

    def __init__(self, config: Config, modes: tuple[str, ...], device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.step = 0
        with torch.cuda.stream(self._stream):
            self._steps = build_step(build_state(config, device), modes)

    def advance(self, count: int) -> None:
        """Set `count` steps going."""
        until = self.step + count
        with torch.cuda.stream(self._stream):
            while self.step < until:
                self.step += self._steps.advance(self.step, until - self.step)


def make_config(setting: Setting, seed: int, mode: str) -> Config:
    """The configuration of a measured run; long enough for everything that is timed."""
    timed = 2 * ROUND_STEPS + setting.steps * setting.repeats
    overrides = (
        f"training.seed={seed}",
        f"training.capture={mode}",
        f"training.device={setting.device}",
        f"training.steps={max(RUN_STEPS, timed)}",
    )
    return resolve_config(setting.preset, None, [*setting.settings, *overrides])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _advance(runners: Sequence[Runner], steps: int, device: torch.device) -> float:
    """Milliseconds for `steps` steps of every run, a few of each at a time, from an idle device to an idle device."""
    _wait(device)
    start = time.perf_counter()
    for done in range(0, steps, ROUND_STEPS):
        for runner in runners:
            runner.advance(min(ROUND_STEPS, steps - done))
    _wait(device)
    return 1000 * (time.perf_counter() - start)


def _sample(runners: Sequence[Runner], setting: Setting, key: str) -> Record:
    """Milliseconds of one step of one run, from `repeats` samples of `steps` steps after a short one."""
    _advance(runners, min(setting.steps, ROUND_STEPS), setting.device)
    steps = setting.steps * len(runners)
    samples = [_advance(runners, setting.steps, setting.device) / steps for _ in range(setting.repeats)]
    return as_record(summarize(samples), key=key)


def measure_mode(mode: str, setting: Setting) -> Record:
    """One run alone: seconds until its first step can begin, milliseconds a step, tokens a second."""
    start = time.perf_counter()
    config = make_config(setting, 0, mode)
    runner = Runner(config, (mode,), setting.device)
    _wait(setting.device)
    row: Record = {"ready_s": time.perf_counter() - start, **_sample([runner], setting, "ms")}
    length = build_task(config).input_length()
    row["tokens_per_s"] = 1000 * config.training.batch_size * length / row["ms"]["median"]
    if setting.device.type == "cuda" and mode != "off":
        row["kernels"] = count_kernels(lambda: runner.advance(ROUND_STEPS), ROUND_STEPS)
    return row


def count_kernels(run: Callable[[], object], steps: int) -> Record:
    """Kernels and copies on the device in a step, and their microseconds in all.

    Kernels of a captured step are timed one after another, so their sum against the time of a step shows the gaps.
    """
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        torch.cuda.synchronize()
    spent = [e.time_range.elapsed_us() for e in profiler.events() if e.device_type.name == "CUDA"]
    return {"per_step": len(spent) / steps, "us_per_step": sum(spent) / steps}


def measure_concurrent(count: int, mode: str, setting: Setting) -> Record:
    """`count` runs on one device: milliseconds per step and run, and steps a second of all together."""
    runners = [Runner(make_config(setting, seed, mode), (mode,), setting.device) for seed in range(count)]
    row: Record = {"mode": mode, **_sample(runners, setting, "ms_per_step")}
    row["steps_per_s"] = 1000 / row["ms_per_step"]["median"]
    if setting.device.type == "cuda":
        row["memory_bytes"] = torch.cuda.memory_reserved(setting.device)
    return row


def run(setting: Setting, packed: Sequence[int]) -> Iterator[tuple[str, Record]]:
    """("modes", row) for every way to run steps, then ("packed", row) for every number of concurrent runs."""
    best, device = "off", setting.device
    for mode in MODES[device.type]:
        row = attempt({"mode": mode}, device, partial(measure_mode, mode, setting))
        best = best if "failed" in row else mode
        yield "modes", row
    for count in packed:
        measure = partial(measure_concurrent, count, best, setting)
        yield "packed", attempt({"concurrent": count}, device, measure)


def new_record(setting: Setting) -> Record:
    """A record without rows."""
    config = make_config(setting, 0, "off").to_dict()
    shown = {name: config[name] for name in ("task", "mixer", "model", "training")}
    facts = {"config": shown, "steps": setting.steps, "repeats": setting.repeats}
    return {**header("train", WHAT, setting.device), **facts, "modes": [], "packed": []}
