"""What is measured on a trained model, by name: numbers small enough to be kept with the run."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statemix import training
from statemix.analysis import inputs_of, mixers, spectrum_summary, transition_eigenvalues
from statemix.environment import describe
from statemix.nn import BDLRU, HLRU
from statemix.ops import normalize
from statemix.timing import time_calls
from statemix.training.files import read_json

TOKENS, MATRICES = 4096, 2000
"""Tokens that are read, at most, and transitions of each mixer that are looked at."""

EIGENVALUES = 150
"""Eigenvalues of each mixer that are kept for a figure."""

LAG, SEQUENCES = 16, 16
"""Tokens after which a memory is measured, and sequences that are read for it."""

TIMED, TIMED_RUN = 20, 300
"""Steps in a sample of a step's time, and the fewest steps of a timed run."""


def spectrum(folder: Path) -> dict[str, Any]:
    """The eigenvalues of the learned transitions on test sequences, all mixers together.

    Returns {"negative", "complex": shares of the eigenvalues, "eigenvalues": [[re, im], …], an even selection}.
    """
    config, model = training.load_run(folder)
    task = training.build_task(config)
    count = max(1, min(32, TOKENS // task.input_length()))
    tokens = task.generate(count, seed=config.training.seed, split="test").inputs
    found = transition_eigenvalues(model, tokens, max_matrices=MATRICES)
    kept = []
    for values in found:
        flat = values.flatten()
        places = torch.linspace(0, len(flat) - 1, min(EIGENVALUES, len(flat))).round().long()
        kept += [[round(z.real, 4), round(z.imag, 4)] for z in flat[places].tolist()]
    return {**spectrum_summary(found), "eigenvalues": kept}


def memory(folder: Path) -> dict[str, Any]:
    """What is left of a state after `LAG` tokens (or the whole sequence), before training and after.

    Returns "left", "forgotten" (`memory_summary`) and "silent" (`silent_gates`), each also with "_at_start".
    """
    config, trained = training.load_run(folder)
    task = training.build_task(config)
    tokens = task.generate(SEQUENCES, seed=config.training.seed, split="test").inputs
    found: dict[str, Any] = {}
    for when, model in (("_at_start", training.build_model(config, task)), ("", trained)):
        summary = memory_summary(left_after(model, tokens, min(LAG, tokens.shape[1])))
        summary["silent"] = silent_gates(model, tokens)
        found |= {f"{name}{when}": value for name, value in summary.items()}
    return found


def step_time(folder: Path) -> dict[str, Any]:
    """Milliseconds of a training step when the run is alone on its device, which it may not have been in training.

    Returns {"milliseconds_per_step", "timed_on": the device, perhaps not the one that it was trained on}. Runs that
    differ in seed and rates alone share one measurement in a process.
    """
    config = training.load_config(folder)
    known = read_json(folder / "summary.json").get("capture")  # older exported files do not tell it
    device = training.build_device(config)
    possible = device.type == "cuda" or known == "off"  # what was trained on a GPU may be timed on a CPU
    captures = (known,) if known and possible else training.captures_of(config.training, device)
    steps = max(TIMED_RUN, config.training.steps)
    alike = replace(config.training, seed=0, lr=1e-3, weight_decay=0.0, steps=steps)
    content = replace(config, name="", training=alike).to_dict()
    milliseconds = _step_milliseconds(json.dumps(content, sort_keys=True), captures)
    return {"milliseconds_per_step": milliseconds, "timed_on": describe(str(device))["device"]}


@functools.lru_cache(maxsize=1000)
def _step_milliseconds(content: str, captures: tuple[str, ...]) -> float:
    """The median of three samples of `TIMED` steps."""
    config = training.Config.from_dict(json.loads(content))
    device = training.build_device(config)
    on_stream: AbstractContextManager[Any] = contextlib.nullcontext()
    if device.type == "cuda":
        on_stream = torch.cuda.stream(torch.cuda.Stream(device))
    with on_stream:
        steps = training.build_step(training.build_state(config, device), captures)
        sample = itertools.count()

        def advance() -> None:
            done = until = next(sample) * TIMED % config.training.steps
            until += min(TIMED, config.training.steps - done)
            while done < until:
                done += steps.advance(done, until - done)

        return time_calls({"steps": advance}, device=device, repeats=3)["steps"].median / TIMED


@torch.no_grad()
def left_after(model: nn.Module, tokens: Tensor, lag: int) -> list[Tensor]:
    """How much of the state before the first of the tokens [B, T] is left in every block after `lag` of them.

    Returns one float64 tensor [B, N] for every BDLRU and HLRU, in order: the ∞-norm of A_lag ⋯ A_1, which is the
    most that a number of the state can change when the state before changes by 1. Where the normalisation bounds the
    rows it is at most 1; an exact 0 means that the block has forgotten everything, and that no gradient passes.
    Errors: ValueError for a lag below 1 or above T. Source: arXiv 2602.12021, proposition 1.
    """
    if not 1 <= lag <= tokens.shape[1]:
        raise ValueError(f"lag: got {lag}, expected 1 to {tokens.shape[1]}, the number of tokens")
    return [_left(layer, x[:, :lag]) for layer, x in _read(model, tokens)]


@torch.no_grad()
def silent_gates(model: nn.Module, tokens: Tensor) -> float:
    """The share of the gates of all BDLRU and HLRU that are exactly 0 at every one of the tokens [B, T].

    Only the "relu" normalisation has such gates; on these tokens no gradient reaches what makes them.
    """
    silent = [
        (normalize(layer.raw_gates(x), layer.normalization) == 0).all(dim=1).all(dim=0).flatten()
        for layer, x in _read(model, tokens)
    ]
    return torch.cat(silent).double().mean().item()


def _read(model: nn.Module, tokens: Tensor) -> list[tuple[BDLRU | HLRU, Tensor]]:
    """The layers, each with its input while the model reads the tokens. ValueError for a model without any."""
    layers = [mixer for mixer in mixers(model) if isinstance(mixer, (BDLRU, HLRU))]
    if not layers:
        raise ValueError("model: it has no BDLRU and no HLRU, expected at least one")
    return list(zip(layers, inputs_of(model, layers, tokens), strict=True))


def _left(layer: BDLRU | HLRU, x: Tensor) -> Tensor:
    """The norm of the product of the transitions on x [B, lag, dim], a column at a time: the recurrence carries each
    unit state through without input."""
    gates, values = layer.raw_gates(x).double(), torch.zeros_like(layer.raw_values(x), dtype=torch.float64)
    nothing = torch.zeros_like(layer.initial_state(len(x)), dtype=torch.float64)
    columns = []
    for number in range(nothing.shape[-1]):
        state = nothing.clone()
        state[..., number] = 1.0
        columns.append(
            layer.scan(gates, values, state, normalization=layer.normalization, hard=layer.hard)[1]
        )
    return torch.stack(columns, dim=-1).abs().sum(dim=-1).amax(dim=-1)


def memory_summary(left: Sequence[Tensor]) -> dict[str, float]:
    """{"left": the median over all blocks, "forgotten": the share of the blocks with nothing left at all}."""
    every = torch.cat([one.flatten() for one in left])
    return {"left": every.median().item(), "forgotten": (every == 0).double().mean().item()}


class Probe(NamedTuple):
    """How a run is measured, from the folder of a finished run, the keys of the result, ready for JSON, whether it
    reads the trained weights, and whether it is a timing, which nothing else may run beside."""

    take: Callable[[Path], dict[str, Any]]
    gives: tuple[str, ...]
    on_weights: bool = True
    is_timing: bool = False


PROBES: dict[str, Probe] = {
    "spectrum": Probe(spectrum, ("negative", "complex", "eigenvalues")),
    "memory": Probe(
        memory,
        tuple(f"{name}{when}" for when in ("_at_start", "") for name in ("left", "forgotten", "silent")),
    ),
    "step_time": Probe(step_time, ("milliseconds_per_step", "timed_on"), on_weights=False, is_timing=True),
}
"""Every probe by name."""
