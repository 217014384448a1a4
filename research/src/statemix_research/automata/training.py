"""Train a population until its runs are solved or its steps are over; what comes of each run as a row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statemix_research.automata.evaluation import (
    Check,
    evaluate,
    fixed_words,
    fresh_words,
    is_proved,
    of_length,
)
from statemix_research.automata.population import Population
from statemix_research.automata.recipes import Recipe
from statemix_research.automata.words import Source

Row = dict[str, Any]

SAVE_SECONDS = 60.0
"""Between two writes of a population that trains."""

STEPS = 500
"""That a population trains before it can be left: it need not wait for its next check."""


class TimeIsUp(Exception):
    """A population was left before its end; its message says where it stands."""


class Record:
    """What is known of the runs of a population while it trains."""

    def __init__(self, population: Population, check: Check) -> None:
        self.population, self.check = population, check
        runs = len(population.seeds)
        self.solved: list[int | None] = [None] * runs
        self.best = [0.0] * runs
        self.curves: list[list[list[float]]] = [[] for _ in range(runs)]
        self.fixed = fixed_words(check, population.seeds) if check.fixed else []

    def update(self) -> None:
        """Look at the last batch, and test the runs when it is time."""
        population, batch = self.population, self.population.accuracy.mean(1).tolist()
        for curve, value in zip(self.curves, batch, strict=True):
            curve.append([population.step, round(value, 3)])
        due = [
            step is None and (value == 1.0 or not self.check.exact)
            for step, value in zip(self.solved, batch, strict=True)
        ]
        if not any(due):
            return
        tested = self.test().tolist()
        for run, value in enumerate(tested):
            self.best[run] = max(self.best[run], value)
            right = due[run] and value >= self.check.solved_from
            if right and (not self.check.proof or is_proved(population, run)):
                self.solved[run] = population.step
                population.keep(run)

    def test(self) -> Tensor:
        """Accuracy [R] on the check's words."""
        check, population = self.check, self.population
        words = self.fixed or fresh_words(population, check.length, check.count, check.words)
        return evaluate(population, words)[0]

    def state_dict(self) -> dict[str, Any]:
        """What is known so far."""
        return {"solved": self.solved, "best": self.best, "curves": self.curves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was known."""
        self.solved, self.best, self.curves = state["solved"], state["best"], state["curves"]

    def line(self) -> str:
        """Where the population stands."""
        population, done = self.population, sum(step is not None for step in self.solved)
        lengths = population.ladder[population.stage].tolist()
        return (
            f"step {population.step}: {done} of {len(self.solved)} solved, accuracy "
            f"{population.accuracy.mean().item():.3f}, training length {min(lengths)}–{max(lengths)}"
        )


def train_population(
    recipe: Recipe,
    words: Source,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    check: Check | None = None,
    lengths: Sequence[tuple[int, int]] = (),
    told: Callable[[str], None] = lambda line: None,
    saved: Path | None = None,
    until: float = math.inf,
) -> tuple[Population, list[Row]]:
    """Train one run a seed until all are solved; returns the population and a row for each run. A solved run ends: its
    weights are those of the step at which it was.

    saved: a file to go on from if it is there, written once a minute and removed in the end. until: `TimeIsUp` after
    this time of `time.monotonic`, with all of it in the file. lengths: (length, words) to test at in the end. A row has

    - "seed", "solved" (the step, or None), "accuracy" (the check's, in the end), "best" (the largest of all checks);
    - "at" {length: accuracy} and "whole" {length: share of words without an error};
    - "positions" (the last batch's accuracy by position), "length", which the run came to train on, and "curve" (pairs
      of step and accuracy);
    - "proved": whether a solved run equals the automaton at every length (`is_proved`);
    - of the population "restarted" (how often one of its runs began anew), "steps", "seconds" and "recipe".
    """
    population, check, restarted = Population(recipe, words, seeds, device), check or Check(), 0
    record, began, last = Record(population, check), time.monotonic(), time.monotonic()
    if saved is not None and saved.exists():
        state = torch.load(saved, map_location=device)
        if state["recipe"] != asdict(recipe):
            raise ValueError(f"saved: got {saved}, of another recipe; expected {recipe}, or no such file")
        population.load_state_dict(state["population"])
        record.load_state_dict(state["record"])
        restarted, began = state["restarted"], began - state["seconds"]
    while population.step < recipe.steps and None in record.solved:
        if time.monotonic() > until:
            raise TimeIsUp(record.line())
        left = min(check.every - population.step % check.every, recipe.steps - population.step)
        population.advance(min(left, STEPS))
        if left <= STEPS:  # a check is due
            record.update()
            if recipe.retry:
                restarted += population.retry_stuck([step is not None for step in record.solved])
        told(record.line())
        if saved is not None and (time.monotonic() > min(until, last + SAVE_SECONDS)):
            last = time.monotonic()
            state = {"population": population.state_dict(), "record": record.state_dict()}
            facts = {"restarted": restarted, "seconds": last - began, "recipe": asdict(recipe)}
            torch.save({**state, **facts}, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
    seconds = time.monotonic() - began
    population.end()
    final = record.test().tolist()
    at = {
        length: [
            x.tolist()
            for x in evaluate(population, fresh_words(population, length, count, of_length(words, length)))
        ]
        for length, count in lengths
    }
    stages = population.ladder[population.stage].tolist()
    proofs = [step is not None and is_proved(population, r) for r, step in enumerate(record.solved)]
    shared = {
        "restarted": restarted, "steps": population.step, "seconds": round(seconds, 1), "recipe": asdict(recipe),
    }  # fmt: skip
    rows = [
        {
            "seed": seed, "solved": record.solved[r], "accuracy": round(final[r], 6),
            "best": round(max(record.best[r], final[r]), 6),
            "at": {n: round(accuracy[r], 8) for n, (accuracy, _) in at.items()},
            "whole": {n: round(whole[r], 4) for n, (_, whole) in at.items()},
            "positions": [round(a, 3) for a in population.accuracy[r].tolist()], "length": stages[r],
            "curve": record.curves[r], "proved": proofs[r], **shared,
        }
        for r, seed in enumerate(seeds)
    ]  # fmt: skip
    return population, rows
