"""How large a block must be to follow an automaton for ever: the rule for m."""

from __future__ import annotations

from typing import NamedTuple

from statemix.tasks.automata import Automaton
from statemix.tasks.base import IGNORED
from statemix.tasks.groups import Group, Map, enough_size, needed_size

MAX_ELEMENTS = 2_000
"""Of a transition monoid."""


class BlockSize(NamedTuple):
    """The rule for m: below `needed` no blocks follow the automaton at every length; with `enough` hard blocks can.

    Both are about one layer. For a group they are mostly equal; for other automata `enough` may be far above.
    """

    needed: int
    enough: int


def smallest_block(automaton: Automaton, *, signed: bool = False) -> BlockSize:
    r"""The smallest block size m with which one layer of any number of blocks can follow an automaton at every length.

    The elements of one layer's transition monoid that undo one another form groups that divide a product of symmetric
    groups $S_m$, one a block; with signed gates of the signed permutations $B_m$ of m things. A group G therefore

    - needs an m such that G divides a power of $S_m$ or $B_m$; `needed` is the least m that the exponent, the derived
      length and the simple core of G allow;
    - has enough with an m such that G embeds in one: $\bigcap_{[G:H] \le m} H = 1$, with signs
      $\bigcap_{[G:H] \le m} \langle h^2 : h \in H \rangle = 1$.

    An automaton that is no group needs what the groups in its transition monoid need. It has enough with a channel for
    each function of the state that "is the answer a" becomes when words are read before, constant ones left out, for
    the answer a with the most: $|\{1_a \circ \delta_w\}|$, with signs up to the sign of $2 \cdot 1_a - 1$.

    Args:
        automaton: With at most 2000 maps of its states that words make, and groups among them of at most 400 elements.
        signed: Whether gates may be negative ("tanh", "linear", "silu"); else "softmax", "sigmoid" or "relu".

    Raises:
        ValueError: There are more.

    Example:
        >>> s4 = Automaton.from_generators({"a": "(1 2)", "b": "(1 2 3 4)"})
        >>> smallest_block(s4), smallest_block(s4, signed=True)
        (BlockSize(needed=4, enough=4), BlockSize(needed=3, enough=3))

    Source: docs, "Learning an automaton", where the rule is derived.
    """
    monoid = _monoid(automaton)
    if automaton.is_group:
        group = Group(monoid)
        return BlockSize(needed_size(group, signed), enough_size(group, signed))
    groups = [Group(elements) for elements in _maximal_groups(monoid)]
    needed = max((needed_size(group, signed) for group in groups), default=1)
    return BlockSize(needed, max(needed, _functions(automaton, monoid, signed)))


def _functions(automaton: Automaton, monoid: list[Map], signed: bool) -> int:
    """The most functions of the state, constant ones left out, that words make of whether it has one of the answers.

    A channel for each is a hard block: at a symbol the channel of f copies that of f after the symbol.
    """
    reached = {word[automaton.start] for word in monoid}
    counts = [1]
    for answer in set(automaton.outputs.tolist()) - {IGNORED}:
        has = (automaton.outputs == answer).tolist()
        made = {tuple(has[word[state]] for state in reached) for word in monoid}
        if signed:
            made = {min(one, tuple(not value for value in one)) for one in made}
        counts.append(sum(len(set(one)) > 1 for one in made))
    return max(counts)


def _monoid(automaton: Automaton) -> list[Map]:
    """All maps of the states that words make, the empty word's first."""
    generators, elements = list[Map](), list[Map]()
    for move in map(tuple, automaton.table.T.tolist()):
        if move not in elements:  # products of those before are no generators
            generators.append(move)
            elements = _products(generators, len(automaton.table))
    return elements


def _products(generators: list[Map], points: int) -> list[Map]:
    elements = [tuple(range(points))]
    found = set(elements)
    for element in elements:  # grows as products are found
        for move in generators:
            product = tuple(move[i] for i in element)
            if product not in found:
                found.add(product)
                elements.append(product)
        if len(elements) > MAX_ELEMENTS:
            raise ValueError(
                f"automaton: got more than {MAX_ELEMENTS} maps of its states, expected at most that"
            )
    return elements


def _maximal_groups(monoid: list[Map]) -> list[list[Map]]:
    """The groups around each idempotent e, as maps of the image of e: those of e·M·e that permute it; once each."""
    found = dict[frozenset[Map], None]()
    for e in monoid:
        if tuple(e[i] for i in e) != e:
            continue
        image = sorted(set(e))
        place = {point: i for i, point in enumerate(image)}
        inside = {tuple(place[e[m[i]]] for i in image) for m in monoid}
        found[frozenset(one for one in inside if len(set(one)) == len(image))] = None
    return [sorted(group) for group in found if len(group) > 1]
