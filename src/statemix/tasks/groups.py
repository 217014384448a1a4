"""State tracking: the running product of elements of a finite group."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor

from statemix.tasks.base import Examples, Option, Task
from statemix.tasks.splits import integers


def permutation_table(elements: Tensor) -> Tensor:
    """The table of a group of permutations int64 [order, n]: entry [a, b] is the number of p∘q, p = elements[a],
    q = elements[b] and (p∘q)[i] = p[q[i]].
    """
    order, n = elements.shape
    digits = n ** torch.arange(n)
    codes, number = torch.sort((elements * digits).sum(dim=1))
    table = torch.empty(order, order, dtype=torch.int64)
    for a in range(order):
        products = elements[a][elements]  # row b is p∘q
        table[a] = number[torch.searchsorted(codes, (products * digits).sum(dim=1))]
    return table


def running_products(factors: Tensor, table: Tensor) -> Tensor:
    """The products of the first 1, 2, … T factors: int64 [T, ...] of factors int64 [T, ...].

    table: int64 [order, order], associative. In log T passes, each of which doubles the factors in a product.
    """
    products, flat, reach = factors.clone(), table.flatten(), 1
    while reach < len(products):
        products[reach:] = flat[products[:-reach] * len(table) + products[reach:]]
        reach *= 2
    return products


def cycle_notation(permutation: tuple[int, ...]) -> str:
    """A permutation of 0 … n - 1 as disjoint cycles of 1 … n; "e" for the identity."""
    text, seen = "", set[int]()
    for start in range(len(permutation)):
        cycle, at = [], start
        while at not in seen:
            seen.add(at)
            cycle.append(str(at + 1))
            at = permutation[at]
        if len(cycle) > 1:
            text += f"({' '.join(cycle)})"
    return text or "e"


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

    @abstractmethod
    def _table(self) -> Tensor:
        """The product of element a (row) by element b (column): int64 [order, order]."""

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        factors = integers(self.vocab_size, (length, count), generator)
        products = running_products(factors, self.table)
        return Examples(factors.T.contiguous(), products.T.contiguous())


class PermutationTask(GroupTask):
    """Base of the groups of permutations: the elements in lexicographic order of their one-line notation.

    The product is composition, (p·q)[i] = p[q[i]]: the newer factor acts first. They are shown as disjoint cycles.
    """

    even = False
    """Whether only even permutations are elements."""

    def _table(self) -> Tensor:
        elements = [p for p in permutations(range(self.integer("n"))) if is_even(p) or not self.even]
        self.marks = {token: (cycle_notation(element), "cyan") for token, element in enumerate(elements)}
        return permutation_table(torch.tensor(elements, dtype=torch.int64))


class Permutation(PermutationTask):
    """The symmetric group S_n of all permutations of n things; n! tokens (720 at n = 6, a table of 4 MB)."""

    name = "permutation"
    summary = "Track the product of random permutations of n things (S_n)"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "n": Option(3, 2, 6, meaning="things permuted; n! tokens"),
        "length": Option(16, 1, meaning="positions"),
    }


class Alternating(PermutationTask):
    """The alternating group A_n of even permutations of n things; n!/2 tokens."""

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
