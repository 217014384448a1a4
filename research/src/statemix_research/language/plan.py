"""Which runs the comparison of language models has, in which order, and what follows from their outcomes.

research/notes/language-models.md says what each stage decides.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from statemix.analysis import Spread, spread
from statemix_research.language.quality import MODELS, SETTING, QualityModel, Setting

RATES = (1e-3, 2e-3, 4e-3)
"""Learning rates of every model."""

SEEDS = (0, 1, 2)
"""Of weights and of the data's order; a seed gives every model the same order."""

TUNING_SEED, TUNING_EPOCHS = 3, 0.5
"""Of the runs that choose learning rates. None of them is reported."""

BLOCK_SIZES = tuple(f"BD-LRU m = {m}" for m in (1, 2, 4, 8, 16))
"""The models that the question is about."""

REFERENCE = "Transformer"
"""The model that others are compared with, and whose time for an epoch all get at equal wall-clock."""

SESSIONS, SESSION_SECONDS, STARTING_SECONDS = 5, 1_500.0, 240.0
"""Device sessions, the device time of each, and what a start takes of it: unpacking and compilation."""

QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for two-sided intervals of 95 %, by the number of seeds."""


@dataclass(frozen=True)
class QualityRun:
    """One training run.

    Attributes:
        stage: A key of `STAGES`.
        model: The name of one of `MODELS`.
        learning_rate: The highest of the schedule.
        seed: Of weights and order.
        epochs: Length of the run and of its schedule.
    """

    stage: str
    model: str
    learning_rate: float
    seed: int = 0
    epochs: float = 1.0

    def seconds(self, models: Sequence[QualityModel] = MODELS) -> float:
        """Expected device time."""
        return self.epochs * next(model.seconds for model in models if model.name == self.model)


@dataclass(frozen=True)
class Outcome:
    """What a run gave: held-out loss, nats a token (infinite where it diverged), and seconds of an epoch's steps."""

    run: QualityRun
    loss: float
    epoch_seconds: float


def lm_settings(run: QualityRun, tokens: int, setting: Setting = SETTING) -> dict[str, Any]:
    """A run as settings of `statemix lm train`, by section. tokens: of the pack's training split.

    >>> lm_settings(rate_runs()[0], 50_385_517)["training"]["steps"]
    768
    """
    model = next(one for one in MODELS if one.name == run.model)
    steps = max(1, round(run.epochs * setting.steps(tokens)))
    return {
        "name": re.sub(r"[^\w.]+", "-", f"{run.stage}-{run.model}-{run.learning_rate:g}-{run.seed}"),
        "mixer": {"name": model.mixer, **model.mixer_arguments(setting)},
        "block": dict(model.block),
        "model": {
            "vocab_size": setting.vocab_size, "dim": setting.dim, "depth": setting.depth, "norm": setting.norm,
            "tie_embeddings": False, "head_bias": setting.head_bias, "scaled_init": setting.scaled_init,
        },
        "data": {"length": setting.length, "eval_sequences": 0},
        "training": {
            "steps": steps, "batch_size": setting.batch_size, "lr": run.learning_rate, "seed": run.seed,
            "warmup": round(setting.warmup * steps), "min_lr": setting.final_rate * run.learning_rate,
            "betas": list(setting.betas), "weight_decay": setting.weight_decay, "gradient_clip": setting.clip,
            "eval_every": steps,
        },
    }  # fmt: skip


def rate_runs(models: Sequence[QualityModel] = MODELS) -> list[QualityRun]:
    """Every model at every learning rate, half an epoch."""
    return [
        QualityRun("rates", model.name, rate, TUNING_SEED, TUNING_EPOCHS)
        for model in models
        for rate in RATES
    ]


def edge_runs(outcomes: Iterable[Outcome]) -> list[QualityRun]:
    """One learning rate more, by a factor of two, for models whose best is the lowest or the highest one tried.

    Models that have had one get no other.
    """
    runs = []
    for model, tried in _by_model(outcomes, "rates", "edges").items():
        if any(one.run.stage == "edges" for one in tried):
            continue
        best = min(tried, key=lambda one: one.loss).run.learning_rate
        rates = [one.run.learning_rate for one in tried]
        if best in (beyond := {min(rates): best / 2, max(rates): best * 2}):
            runs.append(QualityRun("edges", model, beyond[best], TUNING_SEED, TUNING_EPOCHS))
    return runs


def chosen_rates(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """By model: the learning rate with the lowest held-out loss of the runs that choose it."""
    return {
        model: min(tried, key=lambda one: one.loss).run.learning_rate
        for model, tried in _by_model(outcomes, "rates", "edges").items()
    }


def contenders(outcomes: Sequence[Outcome]) -> list[str]:
    """The models that get all seeds: `BLOCK_SIZES`, `REFERENCE`, and the best of the runs that choose rates.

    The best is known once every model has its learning rate.
    """
    tried, done = _by_model(outcomes, "rates", "edges"), {one.run for one in outcomes}
    if any(run not in done for run in (*rate_runs(), *edge_runs(outcomes))):
        return [*BLOCK_SIZES, REFERENCE]
    best = min(tried, key=lambda model: min(one.loss for one in tried[model]))
    return list(dict.fromkeys((*BLOCK_SIZES, REFERENCE, best)))


def epoch_runs(outcomes: Sequence[Outcome]) -> list[QualityRun]:
    """Every model for an epoch at its learning rate, seed 0, and the contenders with the other seeds."""
    rates = chosen_rates(outcomes)
    return [QualityRun("epoch", model, rates[model], seed) for model, seed in _seeded(rates, outcomes)]


def epoch_times(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """By model: seconds of an epoch's steps, without evaluation and compilation.

    The least of all runs before those of equal wall-clock, which others on the same GPU cannot have slowed down.
    """
    timed = _by_model(outcomes, "rates", "edges", "epoch")
    return {model: min(one.epoch_seconds for one in tried) for model, tried in timed.items()}


def wall_clock_runs(outcomes: Sequence[Outcome]) -> list[QualityRun]:
    """Every model for as long as `REFERENCE` takes for an epoch, and the contenders with the other seeds.

    A schedule is as long as its run. ValueError where the reference has no outcome.
    """
    rates, times = chosen_rates(outcomes), epoch_times(outcomes)
    if REFERENCE not in times:
        raise ValueError(f"outcomes: got none of {REFERENCE}, expected one, which sets the time")
    epochs = {model: round(times[REFERENCE] / seconds, 3) for model, seconds in times.items()}
    return [
        QualityRun("wall-clock", model, rates[model], seed, epochs[model])
        for model, seed in _seeded(times, outcomes)
        if model != REFERENCE
    ]


def _seeded(models: Iterable[str], outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    """Models with their seeds: the first of every model, then the others of the contenders."""
    chosen = contenders(outcomes)
    models = list(models)
    return [(one, seed) for seed in SEEDS for one in models if seed == SEEDS[0] or one in chosen]


STAGES: dict[str, Callable[[Sequence[Outcome]], list[QualityRun]]] = {
    "rates": lambda outcomes: rate_runs(),
    "edges": edge_runs,
    "epoch": epoch_runs,
    "wall-clock": wall_clock_runs,
}
"""By name, in order: outcomes of the stages before -> runs."""


def next_runs(outcomes: Sequence[Outcome]) -> list[QualityRun]:
    """What is left of every model's first unfinished stage; nothing once all are done.

    At equal wall-clock models wait for the reference's epochs and for all learning rates.

    >>> len(next_runs([]))
    33
    """
    done, stages, found = {one.run for one in outcomes}, dict[str, str](), list[QualityRun]()
    for stage, runs in STAGES.items():
        if stage == "wall-clock" and (REFERENCE in stages or {"rates", "edges"} & set(stages.values())):
            break
        left = [run for run in runs(outcomes) if run not in done]
        found += [run for run in left if stages.setdefault(run.model, stage) == stage]
    return found


def sessions(runs: Iterable[QualityRun], models: Sequence[QualityModel] = MODELS) -> list[list[QualityRun]]:
    """Runs in their order, as many in a session as its device time holds by the expected seconds."""
    found: list[list[QualityRun]] = [[]]
    left = SESSION_SECONDS - STARTING_SECONDS
    for run in runs:
        seconds = run.seconds(models)
        if seconds > left and found[-1]:
            found.append([])
            left = SESSION_SECONDS - STARTING_SECONDS
        found[-1].append(run)
        left -= seconds
    return found


class Difference(NamedTuple):
    """Mean of the paired differences with its interval of 95 %, and whether the interval leaves 0 out."""

    spread: Spread
    half_width: float
    separable: bool


def compare(outcomes: Iterable[Outcome], first: str, second: str) -> Difference:
    """Held-out loss of `first` less that of `second`, paired by seed.

    outcomes: one for each seed of both models, of one stage. ValueError without two seeds that both have.
    """
    losses: dict[str, dict[int, float]] = {first: {}, second: {}}
    for one in outcomes:
        if one.run.model in losses:
            losses[one.run.model][one.run.seed] = one.loss
    both = sorted(losses[first].keys() & losses[second].keys())
    if len(both) not in QUANTILES:
        raise ValueError(f"outcomes: got {len(both)} seeds of both {first} and {second}, expected 2 to 5")
    found = spread(losses[first][seed] - losses[second][seed] for seed in both)
    half = QUANTILES[found.n] * found.deviation / math.sqrt(found.n)
    return Difference(found, half, abs(found.mean) > half)


def _by_model(outcomes: Iterable[Outcome], *stages: str) -> dict[str, list[Outcome]]:
    """By model, in the order of `MODELS`, its outcomes of these stages."""
    found: dict[str, list[Outcome]] = {model.name: [] for model in MODELS}
    for one in outcomes:
        if one.run.stage in stages:
            found[one.run.model].append(one)
    return {model: some for model, some in found.items() if some}
