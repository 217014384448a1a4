"""Whether a model of hard layers follows an automaton at every length, by enumeration; and what each block does."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from statemix.analysis.enumeration import BlockReading, Enumeration
from statemix.analysis.hard_layers import check_hard
from statemix.analysis.reachable import live_states
from statemix.tasks import IGNORED, Automaton

WORDS, WORD_LENGTH = 64, 128
"""Random words that are read, and their length."""

ATTEMPTS = 4
"""Contents at which channels are put at rest, one after another, until the copy is right."""


@dataclass(frozen=True)
class Proof:
    """The outcome of an enumeration.

    model: what was enumerated: a copy of the model, some channels of it at rest. at_rest: how many: those with too many
    contents were held at constant ones. pairs: reachable pairs of the automaton's state and the contents of all layers;
    None if there are more than the bound. proved: whether `model` gives the automaton's answer for every pair and
    symbol, and so to words of every length. counterexample: a word on which it does not; the shortest, unless
    `sampled`: then the model as it was given errs on it. sure: whether rounding elsewhere makes no difference to the
    rows: none counts whose largest weights are within 1e-4, unless what they copy is equal. lead: how far the logit of
    the right answer is ahead at least. tested: answers of the model as it was given to random words. blocks: the
    readings. table: int64 [pairs, symbols], the learned machine: the next pair. answers: int64 [pairs, symbols].
    """

    model: nn.Module
    pairs: int | None
    proved: bool
    counterexample: tuple[int, ...] | None
    sampled: bool
    sure: bool
    lead: float
    tested: int
    blocks: tuple[BlockReading, ...]
    at_rest: int
    table: Tensor
    answers: Tensor

    @property
    def equal(self) -> bool | None:
        """Whether the model as it was given equals the automaton; None where only a copy with channels at rest does."""
        if self.counterexample is not None and (self.sampled or not self.at_rest):
            return False
        return True if self.proved and not self.at_rest else None


@torch.no_grad()
def prove(model: nn.Module, automaton: Automaton, *, max_pairs: int = 10_000) -> Proof:
    """Enumerate the pairs of the automaton's state and the model's state, and compare every answer.

    With hard rows every channel holds one of finitely many numbers, and what a token does is a function of the token
    and of the layers before. The search goes layer by layer: the pairs of one layer are the states of the automaton
    that the next one reads. Channels that make more than a few pairs of each (that forget, as a rule) are put at rest
    in a copy of the model, at their mean contents or at those of a random word; the proof is then about this copy.

    Args:
        model: A LanguageModel whose layers are BDLRU or HLRU with hard=True, on any device.
        automaton: What it is compared with. Its symbols are the tokens 0 … symbols - 1.
        max_pairs: The most pairs of a layer.

    Raises:
        ValueError: A layer is not hard, or the model has fewer tokens than the automaton.

    Example:
        >>> parity = Automaton([[0, 1], [1, 0]])
        >>> layer = {"block_size": 2, "hard": True, "learned_initial_state": True}
        >>> model = LanguageModel(2, 8, lambda dim: BDLRU(dim, **layer), depth=1)
        >>> prove(model, parity).equal    # a model that was not trained
        False
    """
    check_hard(model)
    vocabulary, needed = model.vocab_size, max(automaton.table.shape[1], int(automaton.outputs.max()) + 1)
    if vocabulary < needed:  # type: ignore[operator]
        raise ValueError(
            f"automaton: got {needed} symbols and answers, expected at most {vocabulary}, the model's tokens"
        )
    if max_pairs < 1:
        raise ValueError(f"max_pairs: got {max_pairs}, expected at least 1")
    words = random_words(automaton, WORDS, WORD_LENGTH)
    model = copy.deepcopy(model).eval()
    wrong, tested = _sampled_error(model, automaton, words)
    for sure, rest in product((True, False), range(ATTEMPTS)):
        search = Enumeration(copy.deepcopy(model), automaton, max_pairs, words, rest, sure)
        found, answers, leads = search.run()
        wrong_steps = (leads <= 0).flatten().nonzero()[:, 0]
        if not search.at_rest or not found.complete or not len(wrong_steps) or wrong is not None:
            break
    counterexample, sampled = wrong, wrong is not None
    if len(wrong_steps) and not (sampled and search.at_rest):
        pair, symbol = divmod(int(wrong_steps[0]), leads.shape[1])
        counterexample, sampled = (*found.word(pair), symbol), False
    return Proof(
        search.model, len(found) if found.complete else None, found.complete and not len(wrong_steps), counterexample,
        sampled, search.sure, float(leads.min()), tested, tuple(search.blocks), search.at_rest, found.table, answers,
    )  # fmt: skip


def random_words(
    automaton: Automaton, count: int, length: int, seed: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Words that keep, while they can, to states with an answer or an answer to come: int64 [count, length].

    generator: draws them in place of a new one of the seed.
    """
    generator = torch.Generator().manual_seed(seed) if generator is None else generator
    live = live_states(automaton)[automaton.table].double()  # [states, symbols]
    live[~live.any(1)] = 1.0  # whatever follows the last answer
    state, words = torch.full((count,), automaton.start), []
    for _ in range(length):
        words.append(torch.multinomial(live[state], 1, generator=generator)[:, 0])
        state = automaton.table[state, words[-1]]
    return torch.stack(words, dim=1)


def _sampled_error(model: Any, automaton: Automaton, words: Tensor) -> tuple[tuple[int, ...] | None, int]:
    """The shortest beginning of the words that is answered wrongly, and how many answers there were."""
    answers = automaton.answers(words)
    logits, _ = model(words.to(model.head.weight.device))
    wrong = (logits.argmax(-1).cpu() != answers) & (answers != IGNORED)
    tested = int((answers != IGNORED).sum())
    if not wrong.any():
        return None, tested
    length = int(wrong.any(0).nonzero()[0])
    return tuple(words[wrong[:, length]][0, : length + 1].tolist()), tested
