"""Fuzzy recall: keys and values are motifs of several tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from statemix.tasks.base import Examples, Option, Task
from statemix.tasks.recall import next_token_examples
from statemix.tasks.splits import integers


class _Motifs(NamedTuple):
    """Motifs: tokens int64 [m, count, S], of which the first `sizes` int64 [count, S] are meant."""

    tokens: Tensor
    sizes: Tensor


def distinct(alphabet: int, m: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Ordered selections without repetition, uniform: int64 [m, *shape], m tokens below `alphabet`."""
    chosen, ascending = list[Tensor](), list[Tensor]()
    for i in range(m):
        token = integers(alphabet - i, shape, generator)
        for taken in ascending:
            token = token + (token >= taken)  # its number among the free tokens becomes the token itself
        chosen.append(token)
        for j, taken in enumerate(ascending):
            ascending[j], token = torch.minimum(taken, token), torch.maximum(taken, token)
        ascending.append(token)
    return torch.stack(chosen)


def first_equal(codes: Tensor) -> Tensor:
    """The first place in its row that holds the same number: int64 [count, S] of codes int64 [count, S]."""
    ordered, places = codes.sort(dim=1, stable=True)
    heads = torch.arange(codes.shape[1]).repeat(len(codes), 1)
    heads[:, 1:].masked_fill_(ordered[:, 1:] == ordered[:, :-1], 0)
    heads = heads.cummax(dim=1).values
    return torch.empty_like(places).scatter_(1, places, places.gather(1, heads))


class FuzzyRecall(Task):
    """Recall in which keys and values are motifs: 1 to m = `motif_size` different tokens in a certain order.

    Keys use the first ⌊(V - 1)/2⌋ tokens, values the others but V - 1, which is padding. A sequence is key,
    value, key, value, …, and at its end a probe key and its value; a key keeps its value within an instance,
    and the probe pair has been shown before. Sizes are uniform (keys always have m tokens in validation and
    test), and so are motifs of one size. Sequences are padded on the left to length + 1 tokens; T = length
    after the shift by one. Targets: the next token at all positions in training, padding included; in
    validation and test only the tokens of values whose key was seen before, and of the probe's value.

    A pair is begun while fewer than length - L - 2m tokens stand, L being the probe's size; the probe is
    shown as soon as a threshold is passed, uniform from 0 to length - L - 4m, unless its key came up by
    itself before.
    """

    name = "fuzzy_recall"
    summary = "Recall values by their keys, both of several tokens"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 4, 2**15, meaning="tokens: keys, values and padding"),
        "motif_size": Option(3, 1, 4, meaning="the most tokens of a key or a value"),
        "length": Option(128, 6, meaning="positions, padding among them"),
    }

    def _prepare(self) -> None:
        self.motif = self.integer("motif_size")
        self.padding, self.keys = self.vocab_size - 1, (self.vocab_size - 1) // 2
        self.values = self.padding - self.keys
        self.length_option = Option(0, 6 * self.motif, note="6 * motif_size")
        if self.keys < self.motif:
            raise ValueError(
                f"{self.name}.vocab_size: got {self.vocab_size}, expected at least {2 * self.motif + 1} "
                f"(2 * motif_size + 1)"
            )

    def _bits(self, length: int) -> float:
        keys = min(self.motif * self.keys, math.perm(self.keys, self.motif))  # in training, in a test
        pairs = (length - 4 * self.motif) // (2 * self.motif)  # at least so many; one may be the probe
        return pairs * math.log2(keys) + math.log2(self.motif * self.values)

    def _motifs(self, alphabet: int, shape: tuple[int, int], full: bool, draw: torch.Generator) -> _Motifs:
        tokens = distinct(alphabet, self.motif, shape, draw)
        return _Motifs(
            tokens, torch.full(shape, self.motif) if full else integers(self.motif, shape, draw) + 1
        )

    def _codes(self, motifs: _Motifs) -> Tensor:
        """A number for every motif, the same only for the same motif: int64 [count, S]."""
        codes = torch.zeros_like(motifs.sizes)
        for i, tokens in enumerate(motifs.tokens):
            codes += (tokens + 1) * (i < motifs.sizes) * (self.vocab_size + 1) ** i
        return codes

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        slots = -(-length // (2 if training else self.motif + 1))  # the last one is the probe at the end
        keys = self._motifs(self.keys, (count, slots), not training, generator)
        values = self._motifs(self.values, (count, slots), False, generator)
        values.tokens.add_(self.keys)
        limit = length - 2 * self.motif - keys.sizes[:, -1:] - values.sizes[:, -1:]
        # one draw for every possible range: 62 bits leave no bias to speak of
        threshold = integers(2**62, (count, 1), generator) % (limit - 2 * self.motif + 1)
        codes = self._codes(keys)
        starts, _, _ = self._layout(codes, keys, values)
        self._show_probe(starts >= threshold, codes, keys)
        starts, first, source = self._layout(codes, keys, values)
        tokens = torch.stack([plane.gather(1, source) for plane in values.tokens])
        chosen = _Motifs(tokens, values.sizes.gather(1, source))
        return self._write(length, starts < limit, keys, chosen, first, training)

    def _show_probe(self, late: Tensor, codes: Tensor, keys: _Motifs) -> None:
        """Put the probe's key (the last slot's) into the first late slot unless it came before; in place."""
        last = codes.shape[1] - 1
        due = late[:, :-1].to(torch.uint8).argmax(dim=1, keepdim=True)
        shown = (codes[:, :-1] == codes[:, -1:]) & (torch.arange(last) < due)
        place = torch.where(shown.any(dim=1, keepdim=True), last, due)  # the last slot has it anyway
        for entry in (codes, keys.sizes, *keys.tokens):
            entry.scatter_(1, place, entry[:, -1:].clone())

    def _layout(self, codes: Tensor, keys: _Motifs, values: _Motifs) -> tuple[Tensor, Tensor, Tensor]:
        """Where slots start, each key's first slot, the slot whose value it has: three int64 [count, S]."""
        first = first_equal(codes)
        source = torch.where(codes == codes[:, -1:], codes.shape[1] - 1, first)
        sizes = keys.sizes + values.sizes.gather(1, source)
        return sizes.cumsum(dim=1) - sizes, first, source

    def _write(
        self, length: int, begun: Tensor, keys: _Motifs, values: _Motifs, first: Tensor, training: bool
    ) -> Examples:
        """Write the slots begun (bool [count, S]), then the probe, to the right of length + 1 columns."""
        written = begun.clone()
        written[:, -1] = True
        sizes = (keys.sizes + values.sizes) * written
        starts = length + 1 - sizes.sum(dim=1, keepdim=True) + sizes.cumsum(dim=1) - sizes
        seen = first < torch.arange(first.shape[1])
        shape = (len(sizes), length + 2)  # one column more for what is not written
        sequence, queried = torch.full(shape, self.padding), torch.zeros(shape, dtype=torch.bool)
        for motifs, begin in ((keys, starts), (values, starts + keys.sizes)):
            for i, tokens in enumerate(motifs.tokens):
                place = torch.where(written & (i < motifs.sizes), begin + i, length + 1)
                sequence.scatter_(1, place, tokens)
                if motifs is values:
                    queried.scatter_(1, place, seen)
        return next_token_examples(sequence[:, :-1], queried[:, :-1], training)

    def look(self, token: int) -> tuple[str, str]:
        """A number, keys and values in different styles, or a dot for padding."""
        return (
            ("·", "white")
            if token == self.padding
            else (str(token), "cyan" if token < self.keys else "yellow")
        )
