"""Recall of values by their keys, within one sequence: in-context recall, and the same among noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from statemix.tasks.base import IGNORED, Examples, Task
from statemix.tasks.options import FractionOption, IntOption, Option
from statemix.tasks.splits import fractions, integers

_LENGTH = IntOption(128, 4, meaning="tokens of the whole sequence, an even number; the inputs have one fewer")


def next_token_examples(sequence: Tensor, asked: Tensor, training: bool) -> Examples:
    """Inputs and targets [count, S - 1] of sequences [count, S]: predict the next token.

    In training every position has its target, otherwise those alone whose next token is `asked` [count, S].
    """
    targets = sequence[:, 1:].clone()
    if not training:
        targets.masked_fill_(~asked[:, 1:], IGNORED)
    return Examples(sequence[:, :-1].contiguous(), targets)


def first_places(keys: Tensor, valid: Tensor, alphabet: int) -> Tensor:
    """Where every key comes first: int64 [count, alphabet], P for a key that never does.

    keys: int64 [count, P] below `alphabet`; valid: bool [count, P], the places that count.
    """
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
        "vocab_size": IntOption(16, 4, meaning="tokens: keys, then values"),
        "length": _LENGTH,
    }

    noise_vocab = 0
    noise = 0.0

    def _prepare(self) -> None:
        self.vocab_size = self.integer("vocab_size")
        self.noise_start = self.vocab_size - self.noise_vocab
        self.keys = self.noise_start // 2
        self.values = self.noise_start - self.keys

    def _accepts_length(self, length: int) -> bool:
        return length >= 4 and length % 2 == 0

    def _expected_length(self) -> str:
        return "an even integer of at least 4"

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
        asked = torch.zeros(count, length, dtype=torch.bool)
        asked[:, 1:-1:2] = (first.gather(1, keys) < torch.arange(pairs)) & ~noisy
        asked[:, -1] = True
        if self.noise_vocab:
            tokens = integers(self.noise_vocab, (count, 2 * pairs), generator) + self.noise_start
            both = noisy.repeat_interleave(2, dim=1)
            sequence[:, :-2] = torch.where(both, tokens, sequence[:, :-2])
        return next_token_examples(sequence, asked, training)

    def _style(self, position: int, token: int) -> str:
        if token >= self.noise_start:
            return "red"
        return "cyan" if token < self.keys else "yellow"


class NoisyRecall(InContextRecall):
    """In-context recall in which noise comes between.

    The last `noise_vocab` tokens of the vocabulary are noise. Each pair but the probe is, with probability
    `noise`, two independent noise tokens instead; at least one pair is true. Noise is a target in training
    and never else.
    """

    name = "noisy_recall"
    summary = "Recall values by their keys, with noise between the pairs"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": IntOption(32, 5, meaning="tokens: keys, values, then noise"),
        "noise_vocab": IntOption(16, 1, meaning="tokens of noise"),
        "noise": FractionOption(0.2, meaning="the chance that a pair is noise"),
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
