"""State tracking: running products in finite groups, and regular languages and automata (Delétang et al. 2022)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from statemix.tasks.automata import KEYS, Automaton, cycle_notation, read_description
from statemix.tasks.base import IGNORED, Examples, Option, Task


def permutation_table(elements: Tensor) -> Tensor:
    """The table of a group of permutations int64 [order, n] in lexicographic order: [a, b] is the number of
    elements[a]∘elements[b], where (p∘q)[i] = p[q[i]].
    """
    n = elements.shape[1]
    digits = n ** torch.arange(n).flip(0)  # codes with the first entry in front ascend
    return torch.searchsorted(elements @ digits, elements[:, elements] @ digits)


def running_products(factors: Tensor, table: Tensor) -> Tensor:
    """The products of the first 1, 2, … T factors: int64 [T, ...] of factors int64 [T, ...].

    table: int64 [order, order], associative. In log T passes, each of which doubles the factors in a product.
    """
    products, flat, reach = factors.clone(), table.flatten(), 1
    while reach < len(products):
        products[reach:] = flat[products[:-reach] * len(table) + products[reach:]]
        reach *= 2
    return products


def is_even(permutation: tuple[int, ...]) -> bool:
    """Whether a permutation has an even number of inversions."""
    n = len(permutation)
    return sum(permutation[i] > permutation[j] for i in range(n) for j in range(i + 1, n)) % 2 == 0


class GroupTask(Task):
    """Base of the group tasks. Inputs: T uniform elements x_1 … x_T of the group, one token each; 0 is e.

    Targets, at every position t: x_1·x_2·…·x_t, that is running ← running·x_t from the identity.
    """

    def _prepare(self) -> None:
        self.table = self._table()
        self.vocab_size = len(self.table)

    def automaton(self) -> Automaton:
        """The group's own: states and symbols are its elements."""
        names = tuple(map(self.symbol, range(self.vocab_size)))
        return Automaton(self.table, 0, None, names, names)

    @abstractmethod
    def _table(self) -> Tensor:
        """The product of element a (row) by element b (column): int64 [order, order]."""

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        factors = torch.randint(self.vocab_size, (length, count), generator=generator)
        products = running_products(factors, self.table)
        return Examples(factors.T.contiguous(), products.T.contiguous())


class Permutation(GroupTask):
    """The symmetric group S_n of all permutations of n things; n! tokens (720 at n = 6, a table of 4 MB).

    The elements stand in lexicographic order of their one-line notation and are shown as disjoint cycles. The
    product is composition, (p·q)[i] = p[q[i]]: the newer factor acts first.
    """

    name = "permutation"
    summary = "Track the product of random permutations of n things (S_n)"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "n": Option(3, 2, 6, meaning="things permuted; n! tokens"),
        "length": Option(16, 1, meaning="positions"),
    }
    even = False
    """Whether only even permutations are elements."""

    def _table(self) -> Tensor:
        elements = [p for p in permutations(range(self.integer("n"))) if is_even(p) or not self.even]
        self.marks = {token: (cycle_notation(element), "cyan") for token, element in enumerate(elements)}
        return permutation_table(torch.tensor(elements))


class Alternating(Permutation):
    """The alternating group A_n of even permutations of n things; n!/2 tokens, as those of S_n otherwise."""

    name = "alternating"
    even = True
    summary = "Track the product of random even permutations of n things (A_n)"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "n": Option(4, 3, 6, meaning="things permuted; n!/2 tokens"),
        "length": Option(16, 1, meaning="positions"),
    }


class Cyclic(GroupTask):
    """The cyclic group Z_n: token k is the number k, the product is addition modulo n."""

    name = "cyclic"
    summary = "Track the sum of random numbers modulo n (Z_n)"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "n": Option(6, 2, 1024, meaning="the modulus; n tokens"),
        "length": Option(16, 1, meaning="positions"),
    }

    def _table(self) -> Tensor:
        numbers = torch.arange(self.integer("n"))
        return (numbers[:, None] + numbers) % len(numbers)


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
        return torch.randint(self.symbols, (count, length), generator=generator)

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

    def automaton(self) -> Automaton:
        """Two states: even and odd."""
        return Automaton(torch.tensor([[0, 1], [1, 0]]), 0, None, ("even", "odd"))


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

    def automaton(self) -> Automaton:
        """Before the first symbol, and the first and the last symbol."""
        table = [[1, 4], *([1, 2], [1, 2]), *([3, 4], [3, 4])]
        return Automaton(torch.tensor(table), 0, [IGNORED, 1, 0, 0, 1], ("start", "00", "01", "10", "11"))

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

    def automaton(self) -> Automaton:
        """A state for each position."""
        moves = torch.arange(self.modulus)[:, None] + torch.tensor([0, 1, -1])
        return Automaton(moves % self.modulus, 0, None, (), ("stay", "+1", "-1"))


class AutomatonTask(PrefixTask):
    """Any deterministic finite automaton. Inputs: uniform symbols. Target at t: the output of the state after t.

    The automaton is given by `table`, `start` and `accepting`, by `generators` of a group, or by a `file` that holds
    these (see `Automaton`). Targets are the states or, with `accepting`, 1 in these states and 0 elsewhere.
    """

    name = "automaton"
    summary = "Follow any finite automaton, given by its table or by generators of a group"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "file": Option("", meaning="a TOML or JSON file that holds the other options of the automaton"),
        "generators": Option(
            {"a": "(1 2)", "b": "(1 2 3)"}, meaning="permutations that generate a group, by symbol"
        ),
        "table": Option({}, meaning="the next state by state and symbol"),
        "start": Option("", meaning="the first state of the table"),
        "accepting": Option((), meaning="states whose target is 1, others 0; empty: targets are states"),
        "target": Option("every", choices=("last", "every"), meaning=_TARGET.meaning),
        "length": Option(16, 1, meaning="positions"),
    }

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with those of the file, which is not needed any more. A table comes without generators."""
        found = dict(options)
        if isinstance(path := found.get("file"), str) and path:
            for name, value in read_description(path).items():
                if name not in KEYS or name in found:
                    raise ValueError(
                        f"automaton.file: {path} gives {name}, expected other ones of {', '.join(KEYS)}"
                    )
                found[name] = value
            found["file"] = ""
        if found.get("table") and "generators" not in found:
            found["generators"] = {}
        return found

    def _prepare(self) -> None:
        given = {name: self.options[name] for name in KEYS}
        try:
            self._automaton = Automaton.from_description(given)
        except ValueError as error:
            raise ValueError(f"{self.name}.{error}") from None
        machine = self._automaton
        self.symbols = machine.table.shape[1]
        self.vocab_size = max(self.symbols, int(machine.outputs.max()) + 1)
        self.marks = {i: (name, "cyan") for i, name in enumerate(machine.symbols)}

    def automaton(self) -> Automaton:
        """As given."""
        return self._automaton

    def _answers(self, inputs: Tensor) -> Tensor:
        return self._automaton.answers(inputs)

    def answer_symbol(self, token: int) -> str:
        """A state's name, or whether it accepts."""
        if self.options["accepting"]:
            return "yes" if token else "no"
        return self._automaton.states[token]


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
        inputs = torch.full((count, length), self.padding)
        first = 1 - length % 2
        numbers = (length + 1) // 2
        inputs[:, first::2] = torch.randint(self.modulus, (count, numbers), generator=generator)
        inputs[:, first + 1 :: 2] = torch.randint(3, (count, numbers - 1), generator=generator) + self.plus
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

    def automaton(self) -> Automaton:
        """Sum and last term modulo m with what comes next; whatever is no expression leads to a state for good."""
        m, padding = self.modulus, self.padding
        start, padded, wrong = ("start",), ("padded",), ("wrong",)
        states: list[tuple[Any, ...]] = [start, padded, wrong]
        states += [("number", total, term) for total in range(m) for term in range(m)]
        states += [("sum", total, sign) for total in range(m) for sign in (1, -1)]
        states += [("product", total, term) for total in range(m) for term in range(m)]
        number = {state: i for i, state in enumerate(states)}

        def after(state: tuple[Any, ...], token: int) -> tuple[Any, ...]:
            kind, *rest = state
            if token < m and kind in ("start", "padded"):
                return "number", 0, token
            if token < m and kind in ("sum", "product"):
                return "number", rest[0], rest[1] * token % m
            if kind == "number" and m <= token < padding:
                total, term = rest
                if token == self.times:
                    return "product", total, term
                return "sum", (total + term) % m, 1 if token == self.plus else -1
            return padded if kind == "start" and token == padding else wrong

        table = [[number[after(state, token)] for token in range(self.vocab_size)] for state in states]
        outputs = [sum(state[1:]) % m if state[0] == "number" else IGNORED for state in states]
        symbols = tuple(map(self.symbol, range(self.vocab_size)))
        return Automaton(
            torch.tensor(table),
            0,
            torch.tensor(outputs),
            tuple(" ".join(map(str, s)) for s in states),
            symbols,
        )
