"""Words and the answers to them, drawn on the device where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from statemix.tasks import IGNORED, Automaton, get_task

PADDING = 0
"""The token behind the end of a word of `OneAnswer`."""

CHUNK = 1024
"""Letters after which long words are cut, to be followed side by side from every state."""


class Source(Protocol):
    """Where words come from."""

    @property
    def vocab_size(self) -> int:
        """Tokens and answers lie below it."""
        ...

    def to(self, device: torch.device | str) -> Source:
        """The same words, drawn on another device."""
        ...

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and targets, int64 [*shape, length]; a target may be `IGNORED`."""
        ...


@dataclass(frozen=True)
class Words:
    """Uniform words of an automaton: letters x_1 … x_T and, at every position, the answer of the state after it.

    transitions: int64 [states, letters]. answers: int64 [states]. start: the state before the first letter.
    letters: int64 [letters], the token that each letter is written as.
    """

    transitions: Tensor
    answers: Tensor
    letters: Tensor
    vocab_size: int
    start: int = 0

    def to(self, device: torch.device | str) -> Words:
        """The same words, drawn on another device."""
        transitions, answers, letters = (x.to(device) for x in (self.transitions, self.answers, self.letters))
        return Words(transitions, answers, letters, self.vocab_size, self.start)

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and answers, int64 [*shape, length]."""
        letters = torch.randint(
            self.transitions.shape[1], (length, *shape), generator=generator, device=self.transitions.device
        )
        return self.written(letters)

    def written(self, letters: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and answers [..., T] of letters [T, ...]."""
        answers = self.answers[self.states(letters)]
        return self.letters[letters].movedim(0, -1), answers.movedim(0, -1)

    def states(self, letters: Tensor) -> Tensor:
        """The states after each of the letters int64 [T, ...], from the start."""
        start = torch.full_like(letters[0], self.start)
        if len(letters) <= CHUNK or len(letters) % CHUNK:
            return self._run(letters, start)
        chunks = letters.unflatten(0, (-1, CHUNK)).transpose(0, 1)  # [CHUNK, chunks, ...]
        every = torch.arange(len(self.transitions), device=letters.device)
        ends = every.expand(*chunks.shape[1:], len(every))  # where a chunk leads from each state
        for letter in chunks:
            ends = self._next(ends, letter.unsqueeze(-1))
        starts = [start]
        for end in ends[:-1]:
            starts.append(end.gather(-1, starts[-1].unsqueeze(-1)).squeeze(-1))
        return self._run(chunks, torch.stack(starts)).transpose(0, 1).flatten(0, 1)

    def automaton(self) -> Automaton | None:
        """The automaton, if letters are written as their numbers."""
        plain = torch.equal(self.letters, torch.arange(len(self.letters), device=self.letters.device))
        return Automaton(self.transitions.cpu(), self.start, self.answers.cpu()) if plain else None

    def _next(self, state: Tensor, letter: Tensor) -> Tensor:
        return self.transitions.flatten()[state * self.transitions.shape[1] + letter]

    def _run(self, letters: Tensor, state: Tensor) -> Tensor:
        states = []
        for letter in letters:
            state = self._next(state, letter)
            states.append(state)
        return torch.stack(states)


@dataclass(frozen=True)
class Pool:
    """A fixed number of words to train on, drawn once. `draw` draws fresh ones, of any length.

    tokens, targets: int64 [count, T].
    """

    words: Words
    tokens: Tensor
    targets: Tensor

    @property
    def vocab_size(self) -> int:
        """Of the words."""
        return self.words.vocab_size

    def to(self, device: torch.device | str) -> Pool:
        """The same words, on another device."""
        return Pool(self.words.to(device), self.tokens.to(device), self.targets.to(device))

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and targets, int64 [*shape, length], of fresh words."""
        return self.words.draw(shape, length, generator)


class Epochs:
    """Passes of several runs over a pool, each in an order of its own; the words that fill no batch are left out.

    Its state lies on the pool's device, so that a CUDA graph may draw.
    """

    def __init__(self, pool: Pool, runs: int, batch_size: int) -> None:
        count, device = len(pool.tokens), pool.tokens.device
        if batch_size > count:
            raise ValueError(f"batch_size: got {batch_size}, expected at most the pool's {count} words")
        self.pool, self.batch_size, self.batches = pool, batch_size, count // batch_size
        self.order = torch.zeros(runs, count, dtype=torch.int64, device=device)
        self.batch = torch.zeros((), dtype=torch.int64, device=device)

    def draw(self, length: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Tokens and targets, int64 [R, B, length]: beginnings of each run's next words."""
        device = self.order.device
        anew = torch.rand(self.order.shape, generator=generator, device=device).argsort(-1)
        self.order.copy_(torch.where(self.batch == 0, anew, self.order))
        places = self.batch * self.batch_size + torch.arange(self.batch_size, device=device)
        which = self.order.gather(1, places.expand(len(self.order), -1))
        self.batch.copy_((self.batch + 1) % self.batches)
        return self.pool.tokens[which][..., :length], self.pool.targets[which][..., :length]


@dataclass(frozen=True)
class HeldOut:
    """Words in which some pairs of letters never stand side by side.

    instead: int64 [letters, letters], what stands behind the first letter in place of the second: the second itself
    where the pair is allowed.
    """

    words: Words
    instead: Tensor

    @property
    def vocab_size(self) -> int:
        """Of the words."""
        return self.words.vocab_size

    def to(self, device: torch.device | str) -> HeldOut:
        """The same words, drawn on another device."""
        return HeldOut(self.words.to(device), self.instead.to(device))

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and answers, int64 [*shape, length]."""
        count, device = len(self.instead), self.instead.device
        drawn = torch.randint(count, (length, *shape), generator=generator, device=device)
        letters = [drawn[0]]
        for letter in drawn[1:]:
            letters.append(self.instead.flatten()[letters[-1] * count + letter])
        return self.words.written(torch.stack(letters))


def hold_out(words: Words, share: float, seed: int = 0) -> HeldOut:
    """Words without a random share of the pairs of letters; the next letter that is allowed stands in their place."""
    count = words.transitions.shape[1]
    allowed = torch.rand(count, count, generator=torch.Generator().manual_seed(seed)) >= share
    instead = torch.arange(count).repeat(count, 1)
    for _ in range(count):
        instead = torch.where(allowed.gather(1, instead), instead, (instead + 1) % count)
    return HeldOut(words, instead)


@dataclass(frozen=True)
class Arithmetic:
    """Expressions of numbers modulo five, +, - and ×, without brackets, and their value at "=".

    Operators are 1 (+), 2 (-) and 3 (×), "=" is 4, the numbers are 5 … 9. × binds before + and -. The answer to the
    expression so far stands at every odd position, where "=" may stand.
    """

    vocab_size: int = 10
    device: torch.device | str = "cpu"

    def to(self, device: torch.device | str) -> Arithmetic:
        """The same words, drawn on another device."""
        return replace(self, device=device)

    def draw(
        self, shape: Sequence[int], length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and answers, int64 [*shape, length]; length is even."""
        half = (length // 2, *shape)
        numbers = torch.randint(5, half, generator=generator, device=self.device)
        operators = torch.randint(1, 4, half, generator=generator, device=self.device)
        total, term, values = torch.zeros_like(numbers[0]), numbers[0], [numbers[0]]
        for operator, number in zip(operators[:-1], numbers[1:], strict=True):
            times = operator == 3
            total = torch.where(times, total, total + term) % 5
            term = torch.where(times, term * number, torch.where(operator == 2, -number, number)) % 5
            values.append((total + term) % 5)
        tokens = torch.stack([numbers + 5, operators], 1).flatten(0, 1)
        answers = torch.stack([torch.full_like(numbers, IGNORED), torch.stack(values) + 5], 1).flatten(0, 1)
        return tokens.movedim(0, -1), answers.movedim(0, -1)


@dataclass(frozen=True)
class OneAnswer:
    """Words of a source of uniform length from `shortest` on, padded behind their end; one target, at the last letter.

    last: the token that stands there in place of a letter (0: the letter stays). Lengths are rounded up to a multiple
    of `unit`.
    """

    words: Words | Arithmetic
    shortest: int = 3
    last: int = 0
    unit: int = 1

    @property
    def vocab_size(self) -> int:
        """Tokens, the padding among them."""
        return self.words.vocab_size

    def to(self, device: torch.device | str) -> OneAnswer:
        """The same words, drawn on another device."""
        return replace(self, words=self.words.to(device))

    def draw(
        self,
        shape: Sequence[int],
        length: int,
        generator: torch.Generator | None = None,
        longest: Tensor | int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens and targets, int64 [*shape, length]: words of at most `length` letters. longest: their most letters,
        where it is less; of each row of the shape if it is a tensor."""
        tokens, answers = self.words.draw(shape, length, generator)
        share = torch.rand((*shape, 1), generator=generator, device=tokens.device)
        span = (length if longest is None else longest) - self.shortest + 1
        lengths = self.shortest + (share * span).long()
        lengths = -(-lengths // self.unit) * self.unit
        place = torch.arange(length, device=tokens.device)
        end = place == lengths - 1
        if self.last:
            tokens = tokens.masked_fill(end, self.last)
        return tokens.masked_fill(place >= lengths, PADDING), answers.masked_fill(~end, IGNORED)


def group_words(name: str, n: int, generators: Tensor | None = None) -> Words:
    """Words of a group of `statemix.tasks`: all of its elements are letters, or those with the numbers `generators`.

    Letters are written as their places, answers as the elements' numbers. Example: `group_words("permutation", 5)` is
    the word problem of S5.
    """
    table = get_task(name, n=n).table  # type: ignore[attr-defined]
    elements = torch.arange(len(table))
    chosen = elements if generators is None else generators
    return Words(table[:, chosen].contiguous(), elements, torch.arange(len(chosen)), len(table))


def _automaton(
    transitions: list[list[int]], answers: list[int], letters: list[int], vocab_size: int
) -> Words:
    return Words(torch.tensor(transitions), torch.tensor(answers), torch.tensor(letters), vocab_size)


LANGUAGES: dict[str, OneAnswer] = {
    "parity": OneAnswer(_automaton([[0, 1], [1, 0]], [1, 2], [1, 2], 3)),
    # states: nothing read; (first, newest) = 00, 01, 10, 11
    "even_pairs": OneAnswer(_automaton([[1, 4], [1, 2], [1, 2], [3, 4], [3, 4]], [1, 1, 2, 2, 1], [1, 2], 3)),
    "cycle_navigation": OneAnswer(
        _automaton([[k, (k + 1) % 5, (k - 1) % 5] for k in range(5)], [4, 5, 6, 7, 8], [1, 2, 3], 9)
    ),
    "modular_arithmetic": OneAnswer(Arithmetic(), last=4, unit=2),
}
"""The regular languages of protocol A (PD-SSM, SLiCE), with their token ids; 0 is padding."""
