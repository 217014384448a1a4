"""Tests of the runs of a population: on which words, how many answers are right, and whether a run is proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from statemix.analysis import prove
from statemix.tasks import IGNORED
from statemix_research.automata.population import Population
from statemix_research.automata.tracker import changes_rows
from statemix_research.automata.words import HeldOut, OneAnswer, Pool, Source, Words

TOKENS, BATCH = 1 << 17, 256
"""That an evaluation reads at once, about, and its words."""


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


def fresh_words(
    population: Population, length: int, count: int, words: Source | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens and targets [R, B, T] of `count` words of a length, BATCH at a time. words: of another source."""
    generator = None if population.device.type == "cuda" else torch.Generator().manual_seed(7)
    source = population.words if words is None else words.to(population.device)
    for first in range(0, count, BATCH):
        yield source.draw((len(population.seeds), min(BATCH, count - first)), length, generator)


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


@torch.no_grad()
def evaluate(population: Population, words: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """On batches of tokens and targets [R, B, T]: the accuracy [R] on all targets, and the share [R] of words
    without an error. Long words are read in pieces with the states carried."""
    population.template.eval()
    right, counted, whole = torch.zeros(
        3, len(population.seeds), device=population.device, dtype=torch.float64
    )
    read = 0
    for tokens, targets in words:
        tokens, targets = tokens.to(population.device), targets.to(population.device)
        piece = max(512, TOKENS // tokens[..., 0].numel())
        states, exact = None, torch.ones_like(targets[..., 0], dtype=torch.bool)
        for at in range(0, tokens.shape[-1], piece):
            logits, states, _ = population.run(tokens[..., at : at + piece], states)
            part = targets[..., at : at + piece]
            wrong, there = logits.argmax(-1) != part, part != IGNORED
            right += (~wrong & there).sum((1, 2))
            counted += there.sum((1, 2))
            exact &= ~(wrong & there).any(-1)
        whole += exact.sum(1)
        read += tokens.shape[1]
    return right / counted, whole / read


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
