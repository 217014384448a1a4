"""The pairs of an automaton's state and a model's state, layer by layer."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from statemix.analysis.hard_layers import HardMaps, read_maps, set_at_rest
from statemix.analysis.reachable import Reachable, reach
from statemix.tasks import IGNORED, Automaton

TIE = 1e-4
"""Weights that differ by less may change places when a product of matrices is rounded otherwise."""

GROWTH, FEW_STEPS = 4, 2**12
"""A block is enumerated that alone makes at most so many pairs of every pair, or takes so many steps in all."""

WARM_UP, AVERAGED = 16, 48
"""Steps before contents are averaged, and steps over which they are."""

Place = tuple[int, int]
"""A layer and a block (or channel of an H-LRU) of it."""


@dataclass(frozen=True)
class BlockReading:
    """What one block does.

    place: its layer and number. at_rest: whether it was put at rest. contents: how many different contents it has; None
    where the pairs were not enumerated. classes: for each state of the automaton the number of the contents that go
    with it, -1 for a state never entered; None where the state does not determine them. determines: whether the
    contents determine the state. gap: how far the largest weight of a row is from the next at least. source, sign: the
    rows for every symbol [symbols, m] in the first layer, the channel copied (m: the new value) and its sign.
    """

    place: Place
    at_rest: bool
    contents: int | None
    classes: tuple[int, ...] | None
    determines: bool
    gap: float
    source: Tensor | None
    sign: Tensor | None

    def rows(self, symbol: int) -> str:
        """The map of a symbol in words: the channel that each channel copies, from 1, or "new"."""
        if self.source is None or self.sign is None:
            return "as the layers before say"
        m, words = self.source.shape[-1], []
        for source, sign in zip(self.source[symbol].tolist(), self.sign[symbol].tolist(), strict=True):
            name = "new" if source == m else str(source + 1)
            words.append("0" if sign == 0 else f"-{name}" if sign < 0 else name)
        return " ".join(words)


class Enumeration:
    """A model (changed in place) and how far it has been read.

    graph: the automaton that the next layer reads. x: what comes into that layer, [I, D]; codes: which of them comes
    with a step, int64 [states of the graph, symbols]. states: the given automaton's, for each state of the graph. rest:
    where blocks are put at rest: 0 at their mean contents over the words, n at those of word n - 1.
    """

    def __init__(self, model: Any, automaton: Automaton, most: int, words: Tensor, rest: int = 0) -> None:
        self.model, self.automaton, self.most, self.words, self.rest = model, automaton, most, words, rest
        count, symbols = automaton.table.shape
        self.device = model.head.weight.device
        self.x = model.embedding(torch.arange(symbols, device=self.device))
        self.graph, self.states = automaton, torch.arange(count)
        self.codes = torch.arange(symbols, device=self.device).expand(count, -1)
        self.blocks: list[BlockReading] = []

    @property
    def at_rest(self) -> list[Place]:
        """The blocks that were put at rest."""
        return [one.place for one in self.blocks if one.at_rest]

    def run(self) -> tuple[Reachable, Tensor, Tensor]:
        """The pairs of all layers, the model's answers int64 [pairs, symbols], IGNORED where none is wanted, and how
        far the logit of the right one is ahead (infinite there)."""
        for layer in range(len(self.model.layers)):
            found = self._read(layer)
            if not found.complete:
                return found, torch.full_like(found.table, IGNORED), torch.full(found.table.shape, torch.inf)
        logits = self.model.head(self.model.norm(self.x)).float().cpu()
        wanted = self.automaton.outputs[self.automaton.table[self.states[: len(found)]]].flatten()
        right = logits.gather(1, wanted.clamp(min=0)[:, None])
        ahead = right[:, 0] - logits.scatter(1, wanted.clamp(min=0)[:, None], -torch.inf).amax(1)
        none = (wanted == IGNORED) | (found.table.flatten() < 0)
        answers = logits.argmax(1).masked_fill(none, IGNORED)
        shape = found.table.shape
        return found, answers.view(shape), ahead.masked_fill(none, torch.inf).view(shape)

    def _read(self, layer: int) -> Reachable:
        """Enumerate one layer, some of its blocks put at rest, and go on behind it."""
        block = self.model.layers[layer]
        maps = read_maps(block, self.x)
        everything = set(range(len(maps.initial)))
        kept = self._choose(maps)
        if resting := sorted(everything - kept):
            set_at_rest(block.mixer, resting, self._rest_contents(layer))
            maps = read_maps(block, self.x)
        found = self._reach(maps, torch.tensor(sorted(everything)))
        before = self.states[found.states]
        for n in range(len(maps.initial)):
            self.blocks.append(self._describe((layer, n), maps, found, before, n not in kept))
        if found.complete:
            self._advance(block, found, before)
        return found

    def _reach(self, maps: HardMaps, blocks: Tensor, most: int | None = None) -> Reachable:
        """The pairs of the graph's states and the contents of some blocks."""
        blocks = blocks.to(self.device)

        def step(states: Tensor, contents: Tensor, symbols: Tensor) -> Tensor:
            return maps.step(contents, self.codes[states, symbols], blocks)

        return reach(self.graph, maps.initial[blocks], step, self.most if most is None else most)

    def _choose(self, maps: HardMaps) -> set[int]:
        """The blocks that make few pairs alone and not too many together, those with the fewest first."""
        states, symbols = self.graph.table.shape
        most, sizes = max(GROWTH * states, FEW_STEPS // symbols), {}
        for n in (maps.gaps >= TIE).nonzero()[:, 0].tolist():
            alone = self._reach(maps, torch.tensor([n]), most)
            if alone.complete:
                sizes[n] = len(alone)
        order = sorted(sizes, key=lambda n: sizes[n])
        tries = range(len(order), 0, -1)
        fits = bisect.bisect_left(tries, True, key=lambda count: self._fits(maps, order[:count]))
        return set(order[: tries[fits]] if fits < len(tries) else ())

    def _fits(self, maps: HardMaps, blocks: list[int]) -> bool:
        return self._reach(maps, torch.tensor(blocks)).complete

    def _rest_contents(self, layer: int) -> Tensor:
        """Contents of a layer's blocks [N, m] while the model reads the words: their mean, or those of one word."""
        states, total = None, torch.zeros((), device=self.device)
        for t, tokens in enumerate(self.words.T[: WARM_UP + AVERAGED].to(self.device)):
            _, states = self.model.step(tokens, states)
            if t >= WARM_UP:
                total = total + states[layer].mean(0)
        return total / AVERAGED if self.rest == 0 else states[layer][self.rest - 1]  # type: ignore[index]

    def _describe(
        self, place: Place, maps: HardMaps, found: Reachable, states: Tensor, at_rest: bool
    ) -> BlockReading:
        n, contents, classes, determines = place[1], None, None, False
        if found.complete:
            distinct, number = torch.unique(found.contents[:, n], dim=0, return_inverse=True)
            contents = len(distinct)
            classes = _classes(states, number.cpu(), len(self.automaton.table))
            determines = _classes(number.cpu(), states, contents) is not None
        first = place[0] == 0
        rows = (maps.source[:, n].cpu(), maps.sign[:, n].cpu()) if first else (None, None)
        return BlockReading(place, at_rest, contents, classes, determines, float(maps.gaps[n]), *rows)

    def _advance(self, block: Any, found: Reachable, states: Tensor) -> None:
        """The pairs become the graph, and the block's outputs the inputs of what follows."""
        count, symbols = found.table.shape
        codes = self.codes[found.states.to(self.device)].flatten()
        pairs = torch.arange(count, device=self.device).repeat_interleave(symbols)
        parts = zip(codes.split(CHUNK), pairs.split(CHUNK), strict=True)
        self.x = torch.cat([block.step(self.x[code], found.contents[pair])[0] for code, pair in parts])
        sink = torch.full((1, symbols), count)
        table = torch.cat((torch.where(found.table < 0, count, found.table), sink))
        outputs = torch.cat((self.automaton.outputs[states], torch.tensor([IGNORED])))
        self.graph, self.states = Automaton(table, 0, outputs), states
        edges = torch.arange(count * symbols, device=self.device).view(count, symbols)
        self.codes = torch.cat((edges, edges[:1]))


CHUNK = 2**14
"""Steps that a block takes at once."""


def _classes(states: Tensor, number: Tensor, count: int) -> tuple[int, ...] | None:
    """For each of `count` states (or other numbers) the one that goes with it, -1 if none does; None if several do."""
    least = torch.full((count,), len(number)).scatter_reduce(0, states, number, "amin")
    most = torch.full((count,), -1).scatter_reduce(0, states, number, "amax")
    if bool(((least != most) & (most >= 0)).any()):
        return None
    return tuple(most.tolist())
