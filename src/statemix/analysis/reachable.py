"""Which pairs of an automaton's state and a layer's state words lead to: a search in breadth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from statemix.tasks import IGNORED, Automaton

EDGES = 2**12
"""Steps that are taken at once, about."""

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""States of the automaton int64 [E], contents of the layer [E, n, m], symbols int64 [E] -> the next contents."""


@dataclass(frozen=True)
class Reachable:
    """The pairs that words lead to, in the order of the shortest words that lead to them.

    states: int64 [pairs], the automaton's. contents: [pairs, n, m], the layer's. table: int64 [pairs, symbols], the
    next pair; -1 where none was looked for. parents: (pair, symbol) that led to each. complete: whether these are all.
    """

    states: Tensor
    contents: Tensor
    table: Tensor
    parents: list[tuple[int, int]]
    complete: bool

    def __len__(self) -> int:
        return len(self.states)

    def word(self, pair: int) -> list[int]:
        """A shortest word that leads to a pair."""
        word = []
        while pair:
            pair, symbol = self.parents[pair]
            word.append(symbol)
        return word[::-1]


def live_states(automaton: Automaton) -> Tensor:
    """Whether a state has an answer or leads to one: bool [states]."""
    live, before = automaton.outputs != IGNORED, None
    while before is None or not torch.equal(live, before):
        before, live = live, live | live[automaton.table].any(1)
    return live


def reach(automaton: Automaton, initial: Tensor, step: Step, most: int) -> Reachable:
    """Every pair that words of the automaton lead to, from its start and the contents `initial` [n, m].

    Contents are the same when their bits are. No pair is looked for where no answer is to come. most: the search ends,
    not complete, when there are more pairs.
    """
    search = _Search(automaton, initial)
    rows = max(1, EDGES // automaton.table.shape[1])
    first = 0
    while first < len(search.parents) <= most:
        last = min(len(search.parents), first + rows)
        search.expand(first, last, step)
        first = last
    return search.found()


class _Search:
    """The pairs so far, and their numbers."""

    def __init__(self, automaton: Automaton, initial: Tensor) -> None:
        self.automaton, self.live = automaton, live_states(automaton)
        self.states, self.contents = torch.tensor([automaton.start]), initial[None]
        self.rows: list[Tensor] = []
        self.parents = [(0, 0)]
        self.number = {tuple(self._keys(self.states, self.contents)[0].tolist()): 0}

    def _keys(self, states: Tensor, contents: Tensor) -> Tensor:
        """Integers [E, X] that tell pairs apart."""
        bits = contents.flatten(1).contiguous().view(torch.int32).cpu()
        return torch.cat((states[:, None].to(torch.int32), bits), dim=1)

    def expand(self, first: int, last: int, step: Step) -> None:
        """Take every symbol from the pairs first … last - 1."""
        symbols, count = self.automaton.table.shape[1], last - first
        tokens, place = (
            torch.arange(symbols).repeat(count),
            torch.arange(first, last).repeat_interleave(symbols),
        )
        before, device = self.states[place], self.contents.device
        states = self.automaton.table[before, tokens]
        contents = step(before.to(device), self.contents[place.to(device)], tokens.to(device))
        keys, inverse = torch.unique(self._keys(states, contents), dim=0, return_inverse=True)
        edge = torch.full((len(keys),), len(states)).scatter_reduce(
            0, inverse, torch.arange(len(states)), "amin"
        )
        numbers = torch.tensor([self.number.get(tuple(key), -1) for key in keys.tolist()])
        new = ((numbers < 0) & self.live[states[edge]]).nonzero()[:, 0]
        new = new[edge[new].argsort()]  # in the order of words
        numbers[new] = torch.arange(len(new)) + len(self.parents)
        self.number |= {tuple(key): int(i) for key, i in zip(keys[new].tolist(), numbers[new], strict=True)}
        origin = edge[new]
        self.parents += zip(place[origin].tolist(), tokens[origin].tolist(), strict=True)
        self.states = torch.cat((self.states, states[origin]))
        self.contents = torch.cat((self.contents, contents[origin.to(device)]))
        self.rows.append(numbers[inverse].view(count, symbols))

    def found(self) -> Reachable:
        """What was found."""
        done = sum(map(len, self.rows))
        rest = torch.full((len(self.states) - done, self.automaton.table.shape[1]), -1)
        complete = done == len(self.states)
        return Reachable(self.states, self.contents, torch.cat([*self.rows, rest]), self.parents, complete)
