"""Training steps of a small model: launched, captured, compiled, and many runs side by side on one device."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.clock import free
from benchmarks.packages import reason
from benchmarks.record_files import header
from benchmarks.timing import summarize
from statemix.training import Config, build_state, build_step, build_task, resolve_config

RUN_STEPS = 20_000
"""Steps of a whole run, by the paper's protocol."""

SPAN = 600.0
"""Seconds in which runs are counted."""

TURN = 20
"""Steps that a run takes in its turn, as in training."""

CAPTURES = {"cuda": ("off", "graph", "compiled"), "cpu": ("off",)}
"""Ways to run steps, by type of device; the last is the one that packed runs take if it works."""


class Setting(NamedTuple):
    """What is measured: settings over the preset, and how often."""

    settings: tuple[str, ...]
    preset: str
    device: torch.device
    steps: int
    repeats: int


class Runner:
    """One run without a folder: its steps, in the first way that works, on a stream of its own where there are any."""

    def __init__(self, config: Config, captures: tuple[str, ...], device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.step = 0
        with self._here():
            state = build_state(config, device)
            self._model, self._steps = state.model, build_step(state, captures)

    def _here(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def advance(self, count: int) -> None:
        """Set `count` steps going."""
        until = self.step + count
        with self._here():
            while self.step < until:
                self.step += self._steps.advance(self.step, until - self.step)

    def fingerprint(self) -> str:
        """SHA-256 of all weights, its first 12 digits: the same bits, the same text. Waits for the device."""
        with self._here():
            weights = [one.detach().cpu().flatten() for one in self._model.state_dict().values()]
        bits = torch.cat([one.view(torch.uint8) for one in weights])
        return hashlib.sha256(bits.numpy().data).hexdigest()[:12]


def config_of(setting: Setting, seed: int, capture: str) -> Config:
    """The configuration of a measured run; long enough for everything that is timed."""
    timed = 2 * TURN + setting.steps * setting.repeats
    overrides = (
        f"training.seed={seed}",
        f"training.capture={capture}",
        f"training.device={setting.device}",
        f"training.steps={max(RUN_STEPS, timed)}",
    )
    return resolve_config(setting.preset, None, [*setting.settings, *overrides])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(runners: Sequence[Runner], steps: int, device: torch.device) -> float:
    """Seconds for `steps` steps of every run, in turns, from an idle device to an idle device."""
    _wait(device)
    start = time.perf_counter()
    done = 0
    while done < steps:
        turn = min(TURN, steps - done)
        for runner in runners:
            runner.advance(turn)
        done += turn
    _wait(device)
    return time.perf_counter() - start


def measure_way(capture: str, setting: Setting) -> dict[str, Any]:
    """One run alone: seconds until its first step can begin, milliseconds a step, tokens a second."""
    start = time.perf_counter()
    config = config_of(setting, 0, capture)
    runner = Runner(config, (capture,), setting.device)
    _wait(setting.device)
    ready = time.perf_counter() - start
    _timed([runner], min(setting.steps, TURN), setting.device)
    seconds = [
        _timed([runner], setting.steps, setting.device) / setting.steps for _ in range(setting.repeats)
    ]
    row: dict[str, Any] = {"capture": capture, "ready_s": ready, "ms": summarize(seconds)}
    length = build_task(config).input_length()
    row["tokens_per_s"] = 1000 * config.training.batch_size * length / row["ms"]["median"]
    row["weights"] = {"step": runner.step, "fingerprint": runner.fingerprint()}
    if setting.device.type == "cuda" and capture != "off":
        row["kernels"] = kernels(lambda: runner.advance(TURN), TURN)
    return row


def step_seconds(
    config: Config, captures: tuple[str, ...], device: torch.device, steps: int, repeats: int
) -> float:
    """Seconds of one optimiser step of a run that is alone on its device: the median of `repeats` times `steps`."""
    runner = Runner(config, captures, device)
    _timed([runner], TURN, device)
    return statistics.median(_timed([runner], steps, device) / steps for _ in range(repeats))


def kernels(run: Callable[[], object], steps: int, shown: int = 25) -> dict[str, Any]:
    """What the device did in a step: how many kernels and copies, their microseconds in all, and the longest.

    Kernels of a captured step are timed one after another, so their sum against the time of a step shows the gaps.
    """
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        torch.cuda.synchronize()
    calls: dict[str, int] = collections.Counter()
    spent: dict[str, float] = collections.defaultdict(float)
    for event in profiler.events():
        if event.device_type.name == "CUDA":
            calls[event.name] += 1
            spent[event.name] += event.time_range.elapsed_us()
    longest = sorted(spent, key=lambda name: -spent[name])[:shown]
    return {
        "per_step": sum(calls.values()) / steps,
        "us_per_step": sum(spent.values()) / steps,
        "longest": [
            {"name": name[:160], "per_step": calls[name] / steps, "us_per_step": spent[name] / steps}
            for name in longest
        ],
    }


def measure_packed(count: int, capture: str, setting: Setting) -> dict[str, Any]:
    """`count` runs side by side: steps a second of all together, and whole runs in ten minutes at that rate."""
    runners = [Runner(config_of(setting, seed, capture), (capture,), setting.device) for seed in range(count)]
    _timed(runners, min(setting.steps, TURN), setting.device)
    seconds = [_timed(runners, setting.steps, setting.device) for _ in range(setting.repeats)]
    ms = summarize([one / (setting.steps * count) for one in seconds])
    rate = 1000 / ms["median"]
    row = {"side_by_side": count, "capture": capture, "ms_per_step": ms, "steps_per_s": rate}
    if setting.device.type == "cuda":
        row["memory_bytes"] = torch.cuda.memory_reserved(setting.device)
    return row | {"runs_in_ten_minutes": SPAN * rate / RUN_STEPS}


def run(setting: Setting, packed: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("ways", row) for every way to run steps, then ("packed", row) for every number of runs side by side.

    What fails is a row with the reason ("failed"). Packed runs take the last way that worked.
    """
    best = "off"
    for capture in CAPTURES[setting.device.type]:
        row = _tried({"capture": capture}, partial(measure_way, capture, setting))
        best = best if "failed" in row else capture
        yield "ways", row
        free(setting.device)
    for count in packed:
        yield (
            "packed",
            _tried({"side_by_side": count}, partial(measure_packed, count, best, setting)),
        )
        free(setting.device)


def _tried(names: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measure()
    except Exception as error:  # compilers and drivers raise of every kind
        return {**names, "failed": reason(error)}


def record(rows: dict[str, list[dict[str, Any]]], *, setting: Setting, command: str) -> dict[str, Any]:
    """Everything measured, ready for JSON."""
    what = (
        "Milliseconds of one optimiser step, wall clock over `steps` steps from an idle device to an idle device: "
        "batch, forward, backward, clip, AdamW, running sums; no evaluation and no checkpoint. ready_s: data, model, "
        "compilation and capture. packed: side_by_side runs in turns; runs_in_ten_minutes counts runs of "
        f"{RUN_STEPS} steps at that rate, without evaluation, checkpoints and the time until a run is ready. kernels: "
        "torch.profiler over captured steps. weights: SHA-256 of all weights after so many steps, shortened: equal "
        "where two machines, or two compilations, compute the same bits."
    )
    config = config_of(setting, 0, "off").to_dict()
    return {
        **header("train", what, command, setting.device),
        "config": {name: config[name] for name in ("task", "mixer", "model", "training")},
        "steps": setting.steps,
        "repeats": setting.repeats,
        "ways": rows.get("ways", []),
        "packed": rows.get("packed", []),
    }
