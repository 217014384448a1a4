"""The six tasks of MAD (Poli et al. 2024) and noisy recall: sequences given back, values recalled by their keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from statemix.tasks.base import IGNORED, Examples, Option, Task
from statemix.tasks.splits import seeded


class Compression(Task):
    """Random tokens, then one compression token; the whole input is to be rebuilt from the last state.

    Inputs: T - 1 uniform tokens of 0 … V - 2, then token V - 1. Targets: the inputs, at all T positions (the
    last one is always V - 1). The autoencoder backbone lets nothing but the last position reach the decoder.
    """

    name = "compression"
    summary = "Rebuild a random sequence from the one state left at its end"
    backbone = "autoencoder"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 3, meaning="tokens, the compression token among them"),
        "length": Option(32, 2, meaning="positions, the compression token's among them"),
    }

    def _prepare(self) -> None:
        self.marks = {self.vocab_size - 1: ("<compress>", "cyan")}

    def _bits(self, length: int) -> float:
        return (length - 1) * math.log2(self.vocab_size - 1)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        inputs = torch.randint(self.vocab_size - 1, (count, length), generator=generator)
        inputs[:, -1] = self.vocab_size - 1
        return Examples(inputs, inputs.clone())


class SelectiveCopying(Task):
    """Tokens scattered among blanks; after the copy token they are to be repeated in order.

    Inputs: k = `copies` uniform tokens of 0 … V - 3 with blanks (V - 2) between them, the copy token (V - 1),
    then k blanks. Each of the T - 2k - 1 scattered blanks stands before one of the k tokens, chosen
    uniformly, so that the last token directly precedes the copy token. Targets: the k tokens in order at the
    last k positions.
    """

    name = "selective_copying"
    summary = "Remember the tokens among the blanks and repeat them in order"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(16, 4, meaning="tokens, blank and copy token among them"),
        "copies": Option(16, 1, meaning="tokens to copy"),
        "length": Option(256, 3, meaning="positions, the blanks where the copy is expected among them"),
    }

    def _prepare(self) -> None:
        self.copies = self.integer("copies")
        self.blank, self.copy_token = self.vocab_size - 2, self.vocab_size - 1
        self.marks = {self.blank: ("·", "white"), self.copy_token: ("<copy>", "bold magenta")}
        self.length_option = Option(0, 2 * self.copies + 1, note="2 * copies + 1")

    def _bits(self, length: int) -> float:
        copies, blanks = self.copies, length - 2 * self.copies - 1
        each, more = divmod(blanks, copies)  # the likeliest gaps are the even ones
        ways = (
            math.lgamma(blanks + 1) - more * math.lgamma(each + 2) - (copies - more) * math.lgamma(each + 1)
        )
        return copies * math.log2(self.vocab_size - 2) + (blanks * math.log(copies) - ways) / math.log(2)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        copies = self.copies
        content = torch.randint(self.vocab_size - 2, (count, copies), generator=generator)
        followers = torch.randint(copies, (count, length - 2 * copies - 1), generator=generator)
        gaps = torch.zeros(count, copies, dtype=torch.int64)
        gaps.scatter_add_(1, followers, torch.ones_like(followers))
        places = gaps.cumsum(dim=1) + torch.arange(copies)
        inputs = torch.full((count, length), self.blank)
        inputs.scatter_(1, places, content)
        inputs[:, length - copies - 1] = self.copy_token
        targets = torch.full((count, length), IGNORED)
        targets[:, length - copies :] = content
        return Examples(inputs, targets)


_LENGTH = Option(128, 4, even=True, meaning="tokens of the whole sequence; the inputs have one fewer")


def next_token_examples(sequence: Tensor, queried: Tensor, training: bool) -> Examples:
    """Next tokens as targets [count, S - 1]: all in training, else those `queried`, of sequences [count, S]."""
    targets = sequence[:, 1:].clone()
    if not training:
        targets.masked_fill_(~queried[:, 1:], IGNORED)
    return Examples(sequence[:, :-1].contiguous(), targets)


def first_places(keys: Tensor, valid: Tensor, alphabet: int) -> Tensor:
    """Where every key comes first among the `valid` of keys [count, P]: int64 [count, alphabet], P for never."""
    count, pairs = keys.shape
    places = torch.where(valid, torch.arange(pairs), pairs)
    first = torch.full((count, alphabet), pairs)
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
        "vocab_size": Option(16, 4, meaning="tokens: keys, then values"),
        "length": _LENGTH,
    }

    noise_vocab, noise = 0, 0.0

    def _prepare(self) -> None:
        self.noise_start = self.vocab_size - self.noise_vocab
        self.keys = self.noise_start // 2
        self.values = self.noise_start - self.keys

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
        noisy = torch.rand((count, pairs), generator=generator, dtype=torch.float32) < self.noise
        return noisy.scatter_(1, torch.randint(pairs, (count, 1), generator=generator), False)

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        pairs = length // 2 - 1
        noisy = self._noisy(count, pairs, generator)
        keys = torch.randint(self.keys, (count, pairs), generator=generator)
        dictionary = torch.randint(self.values, (count, self.keys), generator=generator) + self.keys
        first = first_places(keys, ~noisy, self.keys)
        chance = torch.rand((count, self.keys), generator=generator, dtype=torch.float32).masked_fill_(
            first == pairs, -1.0
        )
        probe = chance.argmax(dim=1, keepdim=True)  # uniform among the keys seen

        sequence = torch.empty(count, length, dtype=torch.int64)
        sequence[:, ::2] = torch.cat([keys, probe], dim=1)
        sequence[:, 1::2] = dictionary.gather(1, sequence[:, ::2])
        queried = torch.zeros(count, length, dtype=torch.bool)
        queried[:, 1:-1:2] = (first.gather(1, keys) < torch.arange(pairs)) & ~noisy
        queried[:, -1] = True
        if self.noise_vocab:
            tokens = (
                torch.randint(self.noise_vocab, (count, 2 * pairs), generator=generator) + self.noise_start
            )
            both = noisy.repeat_interleave(2, dim=1)
            sequence[:, :-2] = torch.where(both, tokens, sequence[:, :-2])
        return next_token_examples(sequence, queried, training)

    def look(self, token: int) -> tuple[str, str]:
        """A number; keys, values and noise differ in style."""
        style = "red" if token >= self.noise_start else "cyan" if token < self.keys else "yellow"
        return str(token), style


class NoisyRecall(InContextRecall):
    """In-context recall in which noise comes between.

    The last `noise_vocab` tokens of the vocabulary are noise. Each pair but the probe is, with probability
    `noise`, two independent noise tokens instead; at least one pair is true. Noise is a target in training
    and never else.
    """

    name = "noisy_recall"
    summary = "Recall values by their keys, with noise between the pairs"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "vocab_size": Option(32, 5, meaning="tokens: keys, values, then noise"),
        "noise_vocab": Option(16, 1, meaning="tokens of noise"),
        "noise": Option(0.2, meaning="the chance that a pair is noise"),
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
        "vocab_size": Option(256, 5, 1 << 20, meaning="tokens: keys, values and the insert token"),
        "map_seed": Option(12345, 0, meaning="which of the maps"),
        "length": Option(32, 2, even=True, meaning="positions, two for each key"),
    }

    def _prepare(self) -> None:
        self.insert_token, self.keys = self.vocab_size - 1, (self.vocab_size - 1) // 2
        self.marks = {self.insert_token: ("?", "magenta")}
        generator = seeded(self.name, "map", self.vocab_size, self.options["map_seed"])
        order = torch.randperm(self.vocab_size - 1 - self.keys, generator=generator)
        self.mapping = order[: self.keys] + self.keys
        """The value of every key: int64 [K]."""

    def _bits(self, length: int) -> float:
        return length // 2 * math.log2(self.keys)

    def overlap_at(self, length: int) -> str:
        """One sentence: the map is always shared, the sequences of keys are not unless there are too few."""
        rows = "no sequence of keys is" if self.divides(length) else "being few, sequences of keys can be"
        return f"Train, validation and test share the one fixed map; at length {length} {rows} in two splits."

    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        keys = torch.randint(self.keys, (count, length // 2), generator=generator)
        inputs = torch.full((count, length), self.insert_token)
        inputs[:, ::2] = keys
        targets = torch.full((count, length), IGNORED)
        targets[:, 1::2] = self.mapping[keys]
        return Examples(inputs, targets)


class _Motifs(NamedTuple):
    """Motifs: tokens int64 [m, count, S], of which the first `sizes` int64 [count, S] are meant."""

    tokens: Tensor
    sizes: Tensor


def distinct(alphabet: int, m: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Ordered selections without repetition, uniform: int64 [m, *shape], m tokens below `alphabet`."""
    chosen, ascending = list[Tensor](), list[Tensor]()
    for i in range(m):
        token = torch.randint(alphabet - i, shape, generator=generator)
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
        if full:
            return _Motifs(tokens, torch.full(shape, self.motif))
        return _Motifs(tokens, torch.randint(self.motif, shape, generator=draw) + 1)

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
        threshold = torch.randint(2**62, (count, 1), generator=generator) % (limit - 2 * self.motif + 1)
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
        if token == self.padding:
            return "·", "white"
        return str(token), "cyan" if token < self.keys else "yellow"
