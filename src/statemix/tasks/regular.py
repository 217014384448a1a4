"""Regular languages and finite automata, the usual tests of length generalisation (Delétang et al. 2022).

All four read one symbol per position. The target is the answer at the last position (target="last", as in the
literature) or that of every prefix (target="every", a denser signal for state tracking).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.splits import integers

_TARGET = Option("last", choices=("last", "every"), meaning="positions with a target: the last, or every one")
_LENGTH = Option(40, 1, meaning="positions")


class PrefixTask(Task):
    """Base: uniform input symbols and the answer of every prefix; all but the last may be ignored."""

    symbols: int

    def _bits(self, length: int) -> float:
        return length * math.log2(self.symbols)

    @abstractmethod
    def _answers(self, inputs: Tensor) -> Tensor:
        """The answer of every prefix: int64 [count, T] of inputs int64 [count, T]."""

    def _inputs(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        return integers(self.symbols, (count, length), generator)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        inputs = self._inputs(count, length, generator)
        targets = self._answers(inputs)
        if self.options["target"] == "last":
            targets[:, :-1] = IGNORED
        return Examples(inputs, targets)

    def answer_symbol(self, token: int) -> str:
        """A target token as a person reads it: a number."""
        return str(token)


class Parity(PrefixTask):
    """Is the number of ones odd? Inputs: uniform 0 and 1. Target at t: the ones up to t, modulo 2."""

    name = "parity"
    summary = "Say whether the number of ones is odd"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"target": _TARGET, "length": _LENGTH}
    vocab_size = symbols = 2

    def _answers(self, inputs: Tensor) -> Tensor:
        return inputs.cumsum(dim=1) % 2


class EvenPairs(PrefixTask):
    """Are there an even number of neighbours 01 and 10, in other words: are the first and last symbol equal?

    Inputs: uniform 0 and 1. Target at t: 1 if symbol t equals the first symbol, else 0.
    """

    name = "even_pairs"
    summary = "Say whether 01 and 10 occur an even number of times (first symbol = last)"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"target": _TARGET, "length": _LENGTH}
    vocab_size = symbols = 2

    def _answers(self, inputs: Tensor) -> Tensor:
        return (inputs == inputs[:, :1]).to(torch.int64)

    def answer_symbol(self, token: int) -> str:
        """Yes or no."""
        return "even" if token else "odd"


class CycleNavigation(PrefixTask):
    """Where does a walk on a cycle end? Inputs: uniform moves, 0 stay, 1 one step on, 2 one step back.

    Target at t: the position after move t, 0 … modulus - 1; the walk starts at position 0.
    """

    name = "cycle_navigation"
    summary = "Follow a walk on a cycle of five positions"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "modulus": Option(5, 2, meaning="positions of the cycle"),
        "target": _TARGET,
        "length": _LENGTH,
    }

    def _prepare(self) -> None:
        self.modulus, self.symbols = self.integer("modulus"), 3
        self.marks = {0: ("stay", "cyan"), 1: ("+1", "cyan"), 2: ("-1", "cyan")}
        self.vocab_size = max(self.modulus, self.symbols)

    def _answers(self, inputs: Tensor) -> Tensor:
        return torch.where(inputs == 2, -1, inputs).cumsum(dim=1) % self.modulus


class ModularArithmetic(PrefixTask):
    """What is the value of an expression without brackets, modulo m?

    Inputs: number, operator, number, …, number. Tokens: the numbers 0 … m - 1, then the operators + (m), - (m
    + 1) and * (m + 2), then padding (m + 3): an expression has an odd number of symbols, so an even length
    starts with one padding token. Numbers and operators are uniform. * binds before + and -, which go from
    left to right. Target at a number: the value, modulo m, of the expression up to it (a number comes last,
    so there is an answer at the last position); operators and padding are ignored in either setting of
    `target`.
    """

    name = "modular_arithmetic"
    summary = "Evaluate an expression of +, - and * modulo five, without brackets"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "modulus": Option(5, 2, meaning="numbers are 0 … modulus - 1"),
        "target": _TARGET,
        "length": Option(39, 1, meaning="positions; an even one starts with padding"),
    }

    def _prepare(self) -> None:
        self.modulus = self.integer("modulus")
        self.plus, self.minus, self.times, self.padding = (self.modulus + i for i in range(4))
        self.vocab_size = self.modulus + 4
        self.marks = {self.modulus + i: (text, "magenta") for i, text in enumerate(("+", "-", "*", "<pad>"))}

    def _bits(self, length: int) -> float:
        numbers = (length + 1) // 2
        return numbers * math.log2(self.modulus) + (numbers - 1) * math.log2(3)

    def _inputs(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        inputs = torch.full((count, length), self.padding, dtype=torch.int64)
        first = 1 - length % 2
        numbers = (length + 1) // 2
        inputs[:, first::2] = integers(self.modulus, (count, numbers), generator)
        inputs[:, first + 1 :: 2] = integers(3, (count, numbers - 1), generator) + self.plus
        return inputs

    def _answers(self, inputs: Tensor) -> Tensor:
        columns, first = inputs.T.contiguous(), 1 - inputs.shape[1] % 2
        targets = torch.full_like(columns, IGNORED)
        total, term = torch.zeros_like(columns[0]), columns[first]
        targets[first] = term
        for t in range(first + 2, len(columns), 2):
            operator, number = columns[t - 1], columns[t]
            product = operator == self.times
            total = torch.where(product, total, total + term) % self.modulus
            signed = torch.where(operator == self.minus, -number, number)
            term = torch.where(product, term * number, signed) % self.modulus
            targets[t] = (total + term) % self.modulus
        return targets.T.contiguous()
