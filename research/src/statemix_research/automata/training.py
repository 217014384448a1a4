"""Train a population until its runs are solved or its steps are over; what comes of each run as a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from statemix_research.automata.population import Population
from statemix_research.automata.recipes import Recipe
from statemix_research.automata.words import Words

EXACT_TO = 512
"""Length of the words on which a run that makes no error in training is tested."""

Row = dict[str, Any]


def train_population(
    recipe: Recipe,
    words: Words,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    check_every: int = 50,
    told: Callable[[str], None] = lambda line: None,
) -> tuple[Population, list[Row]]:
    """Train one run a seed; returns the population and a row for each run.

    A run is solved at the first check at which it answers every letter of its batch at the longest length, and of 64
    words of `EXACT_TO` letters, right. The population stops when all are. A row has "seed", "solved" (the step, or
    None), "accuracy" at `EXACT_TO`, "positions" (the last batch's accuracy by position), "reached", the length that
    the run trains on, "curve": pairs of step and mean accuracy, and "seconds" (of the population).
    """
    population, began = Population(recipe, words, seeds, device), time.perf_counter()
    solved: list[int | None] = [None] * len(seeds)
    curves: list[list[list[float]]] = [[] for _ in seeds]
    while population.step < recipe.steps and None in solved:
        for _ in range(min(check_every, recipe.steps - population.step)):
            population.advance()
        _check(population, solved, curves)
        told(_line(population, solved))
    final = population.evaluate(EXACT_TO).tolist()
    seconds = time.perf_counter() - began
    lengths = population.ladder[population.stage].tolist()
    rows = [
        {
            "seed": seed, "solved": solved[r], "accuracy": round(final[r], 4), "length": lengths[r],
            "positions": [round(a, 3) for a in population.accuracy[r].tolist()], "curve": curves[r],
            "seconds": round(seconds, 1), "steps": population.step, "recipe": asdict(recipe),
        }
        for r, seed in enumerate(seeds)
    ]  # fmt: skip
    return population, rows


def _check(population: Population, solved: list[int | None], curves: list[list[list[float]]]) -> None:
    accuracy = population.accuracy.mean(1).tolist()
    for curve, value in zip(curves, accuracy, strict=True):
        curve.append([population.step, round(value, 3)])
    if any(value == 1.0 and first is None for value, first in zip(accuracy, solved, strict=True)):
        exact = population.evaluate(EXACT_TO).tolist()
        for r, (value, here) in enumerate(zip(exact, accuracy, strict=True)):
            if value == 1.0 and here == 1.0 and solved[r] is None:
                solved[r] = population.step


def _line(population: Population, solved: list[int | None]) -> str:
    done = sum(step is not None for step in solved)
    lengths = population.ladder[population.stage].tolist()
    return (
        f"step {population.step}: {done} of {len(solved)} solved, accuracy {population.accuracy.mean().item():.3f}, "
        f"training length {min(lengths)}–{max(lengths)}"
    )
