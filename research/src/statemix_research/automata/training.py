"""Train a population until its runs are solved or its steps are over; what comes of each run as a row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statemix.analysis import prove
from statemix_research.automata.population import BATCH, Population
from statemix_research.automata.recipes import Recipe
from statemix_research.automata.tracker import changes_rows
from statemix_research.automata.words import HeldOut, OneAnswer, Pool, Source, Words

Row = dict[str, Any]

SAVE_SECONDS = 60.0
"""Between two writes of a population that trains."""


class TimeIsUp(Exception):
    """A population was left before its end; its message says where it stands."""


@dataclass(frozen=True)
class Check:
    """When a run is tested, on what, and from which accuracy on it is solved.

    words: None for those of training. fixed: whether each run has test words of its own, drawn once from twice its
    seed; else they are fresh at every check on a GPU. exact: whether only runs whose last batch has no error are
    tested. proof: whether a run is solved only when it is proved equal to its automaton (`is_proved`).
    """

    every: int = 50
    length: int = 512
    count: int = 64
    solved_from: float = 1.0
    words: Source | None = None
    fixed: bool = False
    exact: bool = True
    proof: bool = False


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
        words = self.fixed or population.test_words(check.length, check.count, check.words)
        return population.evaluate(words)[0]

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


def of_length(words: Source, length: int) -> Source:
    """Words of one length, where the source has shorter ones as well."""
    return replace(words, shortest=length) if isinstance(words, OneAnswer) else words


def fixed_words(check: Check, seeds: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """The check's words for runs with these seeds: batches of tokens and targets [R, B, T]."""
    assert check.words is not None
    drawn = [
        check.words.draw((check.count,), check.length, torch.Generator().manual_seed(2 * seed))
        for seed in seeds
    ]
    tokens, targets = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    return list(zip(tokens.split(BATCH, 1), targets.split(BATCH, 1), strict=True))


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
        population.advance(min(check.every, recipe.steps - population.step))
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
            for x in population.evaluate(population.test_words(length, count, of_length(words, length)))
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


def is_proved(population: Population, run: int) -> bool | None:
    """Whether a run's model equals its automaton, by `statemix.analysis.prove`: its blocks that forget are put at rest.

    None where words are not those of an automaton, or where the model alone does not compute what the recipe trains.
    """
    recipe, source = population.recipe, population.words
    whole = source.words if isinstance(source, Pool | HeldOut) else source
    automaton = whole.automaton() if isinstance(whole, Words) else None
    if (
        automaton is None
        or recipe.model not in ("bdlru", "layers", "hlru")
        or not recipe.hard
        or changes_rows(recipe)
    ):
        return None
    return prove(population.tracker(run).model.to("cpu"), automaton).proved
