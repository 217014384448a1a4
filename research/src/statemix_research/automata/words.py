"""Words of an automaton and the answers to them, drawn on the device where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from statemix.tasks import get_task


@dataclass(frozen=True)
class Words:
    """Uniform words of an automaton: letters x_1 … x_T and, at every position, the answer of the state after it.

    transitions: int64 [states, letters]. answers: int64 [states]. start: the state before the first letter.
    letters: int64 [letters], the token that each letter is written as. vocab_size: tokens and answers lie below it.
    """

    transitions: Tensor
    answers: Tensor
    letters: Tensor
    vocab_size: int
    start: int = 0

    def to(self, device: torch.device | str) -> Words:
        """The same words, drawn on another device."""
        moved = (x.to(device) for x in (self.transitions, self.answers, self.letters))
        return Words(*moved, self.vocab_size, self.start)

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and answers, int64 [*shape, length]."""
        letters = torch.randint(
            self.transitions.shape[1], (length, *shape), generator=generator, device=self.transitions.device
        )
        answers = self.answers[self.states(letters)]
        return self.letters[letters].movedim(0, -1), answers.movedim(0, -1)

    def states(self, letters: Tensor) -> Tensor:
        """The states after each of the letters int64 [T, ...], from the start."""
        flat, count = self.transitions.flatten(), self.transitions.shape[1]
        state, states = torch.full_like(letters[0], self.start), []
        for letter in letters:
            state = flat[state * count + letter]
            states.append(state)
        return torch.stack(states)


def group_words(name: str, n: int, generators: Tensor | None = None) -> Words:
    """Words of a group of `statemix.tasks`: all of its elements are letters, or those with the numbers `generators`.

    Answers are the elements' numbers. Example: `group_words("permutation", 5)` is the word problem of S5.
    """
    table = get_task(name, n=n).table  # type: ignore[attr-defined]
    elements = torch.arange(len(table))
    if generators is None:
        return Words(table, elements, elements, len(table))
    return Words(table[:, generators].contiguous(), elements, generators, len(table))
