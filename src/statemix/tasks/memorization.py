"""Memorization: facts that only the weights can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from statemix.tasks.base import IGNORED, Examples, Task
from statemix.tasks.options import IntOption, Option
from statemix.tasks.splits import integers, seeded


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
        "vocab_size": IntOption(256, 5, 1 << 20, meaning="tokens: keys, values and the insert token"),
        "map_seed": IntOption(12345, 0, meaning="which of the maps"),
        "length": IntOption(32, 2, meaning="positions, two for each key"),
    }

    def _prepare(self) -> None:
        self.vocab_size = self.integer("vocab_size")
        self.insert_token, self.keys = self.vocab_size - 1, (self.vocab_size - 1) // 2
        generator = seeded(self.name, "map", self.vocab_size, self.options["map_seed"])
        order = torch.randperm(self.vocab_size - 1 - self.keys, generator=generator)
        self.mapping = order[: self.keys] + self.keys
        """The value of every key: int64 [K]."""

    def _accepts_length(self, length: int) -> bool:
        return length >= 2 and length % 2 == 0

    def _expected_length(self) -> str:
        return "an even integer of at least 2"

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

    def symbol(self, token: int) -> str:
        """A number, or a question mark for the insert token."""
        return "?" if token == self.insert_token else str(token)

    def _style(self, position: int, token: int) -> str:
        return "magenta" if token == self.insert_token else "cyan"
