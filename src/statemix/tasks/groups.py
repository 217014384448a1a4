"""Finite groups of permutations, and the smallest m whose (signed) permutations of m things can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property

import torch

Map = tuple[int, ...]
"""A map of 0 … n - 1 as its images."""

Subset = frozenset[int]
"""Elements of a group by number."""

MAX_ORDER = 400
"""Elements of a group that is examined: a few seconds at most."""

DERIVED_LENGTHS = {False: {1: 0, 2: 1, 3: 2, 4: 3}, True: {1: 1, 2: 2, 3: 3, 4: 4}}
"""The derived length of all permutations of m things, and of all signed ones (True); beyond, they are not soluble."""


class Group:
    """A finite group given by all its permutations; elements are numbers, 0 is the identity."""

    def __init__(self, elements: Iterable[Map]) -> None:
        rows = torch.tensor(sorted(elements))  # the identity is the first
        if len(rows) > MAX_ORDER:
            raise ValueError(f"automaton: got a group of {len(rows)} elements, expected at most {MAX_ORDER}")
        self.order, points = rows.shape
        self.table = [[0]]
        labels, products = (
            torch.zeros(self.order, dtype=torch.int64),
            torch.zeros(self.order, self.order).long(),
        )
        for point in range(points):  # as many as tell all elements apart
            known, refined = torch.unique(labels * points + rows[:, point], return_inverse=True)
            images = rows[:, rows[:, point]]  # (p·q)[point] = p[q[point]]
            products = torch.searchsorted(known, products * points + images)
            labels = refined
            if len(known) == self.order:
                break
        self.table = labels.argsort()[products].tolist()
        self.inverse = [row.index(0) for row in self.table]

    def generated(self, generators: Iterable[int]) -> Subset:
        """The smallest subgroup that holds some elements."""
        factors, found, elements = [g for g in set(generators) if g], {0}, [0]
        for element in elements:  # grows as products are found
            row = self.table[element]
            for factor in factors:
                if (product := row[factor]) not in found:
                    found.add(product)
                    elements.append(product)
        return frozenset(found)

    def commutators(self, subgroup: Subset) -> Subset:
        """The derived subgroup of a subgroup."""
        t, inverse = self.table, self.inverse
        return self.generated(t[t[inverse[a]][inverse[b]]][t[a][b]] for a in subgroup for b in subgroup)

    @cached_property
    def derived_series(self) -> list[Subset]:
        """The group, its derived subgroup, and so on, down to one that is its own."""
        series = [frozenset(range(self.order))]
        while (smaller := self.commutators(series[-1])) != series[-1]:
            series.append(smaller)
        return series

    @property
    def exponent(self) -> int:
        """The least n with xⁿ = 1 for all x."""
        return math.lcm(*(len(self.generated([x])) for x in range(self.order)))

    def subgroup(self, elements: Subset) -> Group:
        """A subgroup as a group of its own, by how it multiplies its elements."""
        ordered = sorted(elements)
        number = {element: i for i, element in enumerate(ordered)}
        return Group(tuple(number[self.table[a][b]] for b in ordered) for a in ordered)

    def is_simple(self) -> bool:
        """Whether there is no normal subgroup but the whole and the identity."""
        t, inverse, everything = self.table, self.inverse, range(self.order)
        closures = (self.generated(t[t[g][x]][inverse[g]] for g in everything) for x in range(1, self.order))
        return self.order > 1 and all(len(closure) == self.order for closure in closures)

    def large_subgroups(self, m: int) -> Iterator[Subset]:
        """Subgroups of index at most m, among them one inside every subgroup of such an index.

        Of any m + 1 elements two lie in one coset x·K of such a subgroup K, so that K holds x⁻¹·y for two of them.
        """
        seen, waiting = set[Subset](), list[tuple[int, ...]]([()])
        while waiting:
            generators = waiting.pop()
            subgroup = self.generated(generators)
            if subgroup in seen:
                continue
            seen.add(subgroup)
            if self.order <= m * len(subgroup):
                yield subgroup
                continue
            apart = self._apart(subgroup, m + 1)
            quotients = {self.table[self.inverse[x]][y] for i, x in enumerate(apart) for y in apart[:i]}
            waiting += ((*generators, quotient) for quotient in quotients)

    def _apart(self, subgroup: Subset, count: int) -> list[int]:
        """Elements of so many different cosets x·H."""
        chosen, covered = list[int](), set[int]()
        for x in range(self.order):
            if x not in covered:
                chosen.append(x)
                covered |= {self.table[x][h] for h in subgroup}
                if len(chosen) == count:
                    break
        return chosen


def enough_size(group: Group, signed: bool) -> int:
    """The least m for which the group embeds in a power of the (signed) permutations of m things."""
    m = needed_size(group, signed)
    while not _embeds(group, m, signed):
        m += 1
    return m


def _embeds(group: Group, m: int, signed: bool) -> bool:
    """Whether an element other than 1 is moved by an action on at most m cosets, or on them with signs.

    Actions with signs on the cosets of H come from its maps to ±1, whose common kernel its squares generate.
    """
    common = frozenset(range(group.order))
    for subgroup in group.large_subgroups(m):
        kernel = group.generated(group.table[h][h] for h in subgroup) if signed else subgroup
        common &= kernel
        if len(common) == 1:
            return True
    return len(common) == 1


def needed_size(group: Group, signed: bool) -> int:
    """A lower bound of every m with a power of the (signed) permutations of m things that the group divides.

    What divides it has an exponent that divides theirs, and no larger derived length. A group that is not soluble ends
    its derived series in a perfect group; where that is simple, m is at least its own smallest number of points.
    """
    *_, last = group.derived_series
    m, factor, exponent = 1, 2 if signed else 1, group.exponent
    while (factor * math.lcm(*range(1, m + 1))) % exponent:
        m += 1
    if len(last) == 1:
        length = len(group.derived_series) - 1
        return max(m, next((size for size, most in DERIVED_LENGTHS[signed].items() if most >= length), 5))
    core = group if len(last) == group.order else group.subgroup(last)
    points = 5
    while core.is_simple() and not _embeds(core, points, False):
        points += 1
    return max(m, points)
