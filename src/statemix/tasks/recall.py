"""Recall of values by their keys: in-context, the same among noise, and from the weights alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.splits import fractions, integers, seeded

_LENGTH = Option(128, 4, even=True, meaning="tokens of the whole sequence; the inputs have one fewer")


def next_token_examples(sequence: Tensor, queried: Tensor, training: bool) -> Examples:
    """Next tokens as targets [count, S - 1]: all in training, else those `queried`, of sequences [count, S]."""
    targets = sequence[:, 1:].clone()
    if not training:
        targets.masked_fill_(~queried[:, 1:], IGNORED)
    return Examples(sequence[:, :-1].contiguous(), targets)


def first_places(keys: Tensor, valid: Tensor, alphabet: int) -> Tensor:
    """Where every key comes first among the `valid` of keys [count, P]: int64 [count, alphabet], P for never."""
    count, pairs = keys.shape
    places = torch.where(valid, torch.arange(pairs), pairs)
    first = torch.full((count, alphabet), pairs, dtype=torch.int64)
    return first.scatter_reduce_(1, keys, places, "amin")


class InContextRecall(Task):
    """Pairs key value key value …; a key keeps its value within an instance, and values are to be recalled.

    Keys are the lower half of the vocabulary (⌊V/2⌋ tokens), values the upper half. A sequence has `length`
    tokens, an even number: length/2 - 1 pairs with uniform keys, then a probe, a key uniform among those
    seen, and its value. The inputs are the sequence without its last token, so T = length - 1, and the
    targets are the next tokens: all of them in training; in validation and test only the values of keys seen
    before and the probe's value.
    """

    name = "in_context_recall"
    summary = "Recall the value that each key had earlier in the sequence"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 4, meaning="tokens: keys, then values"),
        "length": _LENGTH,
    }

    noise_vocab = 0
    noise = 0.0

    def _prepare(self) -> None:
        self.noise_start = self.vocab_size - self.noise_vocab
        self.keys = self.noise_start // 2
        self.values = self.noise_start - self.keys

    def input_length(self, length: int | None = None) -> int:
        """T = length - 1: the last token of the sequence is only ever a target."""
        return super().input_length(length) - 1

    def _bits(self, length: int) -> float:
        likeliest = (1 - self.noise) / self.keys
        if self.noise_vocab:
            likeliest = max(likeliest, self.noise / self.noise_vocab**2)
        return math.log2(self.keys) + math.log2(self.values) - (length // 2 - 2) * math.log2(likeliest)

    def _noisy(self, count: int, pairs: int, generator: torch.Generator) -> Tensor:
        """Which pairs are noise: bool [count, pairs], in each row at least one that is not."""
        if self.noise == 0.0:
            return torch.zeros(count, pairs, dtype=torch.bool)
        noisy = fractions((count, pairs), generator) < self.noise
        return noisy.scatter_(1, integers(pairs, (count, 1), generator), False)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        pairs = length // 2 - 1
        noisy = self._noisy(count, pairs, generator)
        keys = integers(self.keys, (count, pairs), generator)
        dictionary = integers(self.values, (count, self.keys), generator) + self.keys
        first = first_places(keys, ~noisy, self.keys)
        chance = fractions((count, self.keys), generator).masked_fill_(first == pairs, -1.0)
        probe = chance.argmax(dim=1, keepdim=True)  # uniform among the keys seen

        sequence = torch.empty(count, length, dtype=torch.int64)
        sequence[:, ::2] = torch.cat([keys, probe], dim=1)
        sequence[:, 1::2] = dictionary.gather(1, sequence[:, ::2])
        queried = torch.zeros(count, length, dtype=torch.bool)
        queried[:, 1:-1:2] = (first.gather(1, keys) < torch.arange(pairs)) & ~noisy
        queried[:, -1] = True
        if self.noise_vocab:
            tokens = integers(self.noise_vocab, (count, 2 * pairs), generator) + self.noise_start
            both = noisy.repeat_interleave(2, dim=1)
            sequence[:, :-2] = torch.where(both, tokens, sequence[:, :-2])
        return next_token_examples(sequence, queried, training)

    def look(self, token: int) -> tuple[str, str]:
        """A number; keys, values and noise differ in style."""
        style = "red" if token >= self.noise_start else "cyan" if token < self.keys else "yellow"
        return str(token), style


class NoisyRecall(InContextRecall):
    """In-context recall in which noise comes between.

    The last `noise_vocab` tokens of the vocabulary are noise. Each pair but the probe is, with probability
    `noise`, two independent noise tokens instead; at least one pair is true. Noise is a target in training
    and never else.
    """

    name = "noisy_recall"
    summary = "Recall values by their keys, with noise between the pairs"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(32, 5, meaning="tokens: keys, values, then noise"),
        "noise_vocab": Option(16, 1, meaning="tokens of noise"),
        "noise": Option(0.2, meaning="the chance that a pair is noise"),
        "length": _LENGTH,
    }

    def _prepare(self) -> None:
        self.noise_vocab, self.noise = self.integer("noise_vocab"), float(self.options["noise"])
        super()._prepare()
        if self.noise_start < 4:
            raise ValueError(
                f"{self.name}.noise_vocab: got {self.noise_vocab}, expected at most vocab_size - 4 = "
                f"{self.vocab_size - 4}"
            )


class Memorization(Task):
    """One fixed random map from keys to values, the same in every instance, to be known by heart.

    Keys are the tokens 0 … K - 1 with K = ⌊(V - 1)/2⌋, values the tokens K … V - 2, the insert token is V -
    1. The map gives different keys different values and depends on vocab_size and map_seed alone. Inputs:
    key, insert token, key, insert token, … with uniform keys. Targets: the key's value at the insert token
    after it.
    """

    name = "memorization"
    summary = "Learn one fixed map from keys to values by heart"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(256, 5, 1 << 20, meaning="tokens: keys, values and the insert token"),
        "map_seed": Option(12345, 0, meaning="which of the maps"),
        "length": Option(32, 2, even=True, meaning="positions, two for each key"),
    }

    def _prepare(self) -> None:
        self.insert_token, self.keys = self.vocab_size - 1, (self.vocab_size - 1) // 2
        self.marks = {self.insert_token: ("?", "magenta")}
        generator = seeded(self.name, "map", self.vocab_size, self.options["map_seed"])
        order = torch.randperm(self.vocab_size - 1 - self.keys, generator=generator)
        self.mapping = order[: self.keys] + self.keys
        """The value of every key: int64 [K]."""

    def _bits(self, length: int) -> float:
        return length // 2 * math.log2(self.keys)

    def overlap_at(self, length: int) -> str:
        """One sentence: the map is always shared, the sequences of keys are not unless there are too few."""
        rows = "no sequence of keys is" if self.divides(length) else "being few, sequences of keys can be"
        return f"Train, validation and test share the one fixed map; at length {length} {rows} in two splits."

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        keys = integers(self.keys, (count, length // 2), generator)
        inputs = torch.full((count, length), self.insert_token, dtype=torch.int64)
        inputs[:, ::2] = keys
        targets = torch.full((count, length), IGNORED, dtype=torch.int64)
        targets[:, 1::2] = self.mapping[keys]
        return Examples(inputs, targets)
