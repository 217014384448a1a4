"""What is measured on a trained model, by name: numbers small enough to be kept with the run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from benchmarks.training import step_seconds

from statemix.analysis.spectra import spectrum_summary, transition_eigenvalues
from statemix.environment import describe
from statemix.training import (
    Config,
    RunFolder,
    build_device,
    build_model,
    build_task,
    captures_of,
    load_config,
    load_run,
)
from statemix.training.files import read_json
from statemix_research.paper.memory import left_after, memory_summary, silent_gates

TOKENS, MATRICES = 4096, 2000
"""Tokens that are read, at most, and transitions of each mixer that are looked at."""

TIMED, PACE_STEPS = 60, 300
"""Steps that are timed at once, and the least number that a timed run is made for."""

LAG, READ = 16, 16
"""Tokens after which a memory is looked at, and sequences that are read for it."""

KEPT = 150
"""Eigenvalues of each mixer that are kept to be drawn."""


def spectrum(folder: Path) -> dict[str, Any]:
    """The eigenvalues of the learned transitions on test sequences, every mixer together.

    Returns {"negative", "complex": shares of the eigenvalues, "eigenvalues": [[re, im], …], an even selection}.
    """
    config, model = load_run(folder)
    task = build_task(config)
    count = max(1, min(32, TOKENS // task.input_length()))
    tokens = task.generate(count, seed=config.training.seed, split="test").inputs
    found = transition_eigenvalues(model, tokens, max_matrices=MATRICES)
    kept = []
    for values in found:
        flat = values.flatten()
        places = torch.linspace(0, len(flat) - 1, min(KEPT, len(flat))).round().long()
        kept += [[round(z.real, 4), round(z.imag, 4)] for z in flat[places].tolist()]
    return {**spectrum_summary(found), "eigenvalues": kept}


def memory(folder: Path) -> dict[str, Any]:
    """What is left of a state after `LAG` tokens (or the whole sequence), before training and after.

    Returns {"left_at_start", "forgotten_at_start", "left", "forgotten", "silent_at_start", "silent"}: see
    `memory_summary` and `silent_gates`.
    """
    config, trained = load_run(folder)
    task = build_task(config)
    tokens = task.generate(READ, seed=config.training.seed, split="test").inputs
    found: dict[str, Any] = {}
    for when, model in (("_at_start", build_model(config, task)), ("", trained)):
        summary = memory_summary(left_after(model, tokens, min(LAG, tokens.shape[1])))
        summary["silent"] = silent_gates(model, tokens)
        found |= {f"{name}{when}": value for name, value in summary.items()}
    return found


def pace(folder: Path) -> dict[str, Any]:
    """Milliseconds of a training step when the run is alone on its device, which it may not have been in training.

    Returns {"milliseconds_per_step", "timed_on": the device, perhaps not the one that it was trained on}. Runs that
    differ in seed and rates alone share one measurement in a process.
    """
    config = load_config(folder)
    summary = read_json(RunFolder(folder).summary)
    device = build_device(config)
    known = summary.get("capture")  # older exported files, from which runs are imported, do not tell it
    possible = device.type == "cuda" or known == "off"  # what was trained on a GPU may be timed on a CPU
    captures = (known,) if known and possible else captures_of(config.training, device)
    training = replace(
        config.training, seed=0, lr=1e-3, weight_decay=0.0, steps=max(PACE_STEPS, config.training.steps)
    )
    content = replace(config, name="", training=training).to_dict()
    seconds = _pace(json.dumps(content, sort_keys=True), captures)
    return {"milliseconds_per_step": 1000 * seconds, "timed_on": describe(str(device))["device"]}


@functools.lru_cache(maxsize=1000)
def _pace(content: str, captures: tuple[str, ...]) -> float:
    config = Config.from_dict(json.loads(content))
    return step_seconds(config, captures, build_device(config), steps=TIMED, repeats=3)


class Measure(NamedTuple):
    """How a measurement is taken, from the folder of a finished run, the keys of what it gives, ready for JSON, and
    whether it is taken on the trained weights."""

    take: Callable[[Path], dict[str, Any]]
    gives: tuple[str, ...]
    on_weights: bool = True


MEASURES: dict[str, Measure] = {
    "spectrum": Measure(spectrum, ("negative", "complex", "eigenvalues")),
    "memory": Measure(
        memory,
        tuple(f"{name}{when}" for when in ("_at_start", "") for name in ("left", "forgotten", "silent")),
    ),
    "pace": Measure(pace, ("milliseconds_per_step", "timed_on"), on_weights=False),
}
"""Every measurement by name."""

TIMINGS = ("pace",)
"""Those that nothing else may run beside."""
