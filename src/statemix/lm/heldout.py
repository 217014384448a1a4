"""Text that is predicted: cut into ranges of a pack, laid side by side as rows, read piece after piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from statemix.lm.loss import IGNORED
from statemix.packs import Batch, Batches, Pack

WINDOW = 32
"""Groups of rows whose ranges are sorted by length together, so that rows of a group are about equally long."""


class Range(NamedTuple):
    """Tokens `start` to `stop` of a split, predicted from an empty state."""

    start: int
    stop: int
    unit: int
    """The number of its document; -1 where pieces are units."""


class Piece(NamedTuple):
    """One forward: inputs, targets, context and units are int64 [B, T].

    targets: the next tokens, `IGNORED` at padding. context: tokens that each prediction is made from, at least 1.
    units: what each target belongs to, for the standard error. fresh: whether the states are empty before it.
    """

    inputs: Tensor
    targets: Tensor
    context: Tensor
    units: Tensor
    fresh: bool
    cu_seqlens: Tensor | None = None


def sequence_ranges(pack: Pack, length: int, rows: int, tokens: int, carry_state: bool) -> Iterator[Range]:
    """The first `tokens` of a split as ranges of `length`; with a carried state as `rows` long ones."""
    step = length
    if carry_state:
        step *= -(-tokens // (length * rows))
    for start in range(0, tokens, step):
        yield Range(start, min(start + step, tokens), -1)


def document_ranges(pack: Pack, length: int, rows: int, tokens: int, carry_state: bool) -> Iterator[Range]:
    """Documents until they have `tokens`; without a carried state each in ranges of `length`."""
    begin = 0
    for number in range(len(pack)):
        end = begin + len(pack.document(number))
        step = end - begin if carry_state else length
        for start in range(begin, end, step):
            yield Range(start, min(start + step, end), number)
        begin = end
        if begin >= tokens:
            return


CUTS = {"sequences": sequence_ranges, "documents": document_ranges}
"""How a split is cut."""


def pieces(
    pack: Pack, *, cut: str, length: int, batch_size: int, tokens: int, carry_state: bool
) -> Iterator[Piece]:
    """All pieces of at most `length` tokens of a split, `batch_size` rows at a time."""
    ranges = CUTS[cut](pack, length, batch_size, tokens, carry_state)
    while window := list(islice(ranges, WINDOW * batch_size)):
        window.sort(key=lambda one: one.start - one.stop)  # the longest first
        for first in range(0, len(window), batch_size):
            yield from _run_through(pack, window[first : first + batch_size], length)


def _run_through(pack: Pack, rows: list[Range], length: int) -> Iterator[Piece]:
    """The pieces of some rows, from their beginnings to the end of the longest."""
    longest = max(row.stop - row.start for row in rows)
    for offset in range(0, longest, length):
        width = min(length, longest - offset)
        inputs = np.full((len(rows), width), pack.end_of_document, dtype=np.int64)
        targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
        units = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            begin, end = row.start + offset, min(row.start + offset + width, row.stop)
            if begin < end:
                inputs[place, : end - begin] = _before(pack, begin, end)
                targets[place, : end - begin] = pack.read(begin, end)
                units[place] = begin // length if row.unit < 0 else row.unit
        context = np.broadcast_to(np.arange(offset + 1, offset + width + 1), inputs.shape).copy()
        a, b, c, d = map(torch.from_numpy, (inputs, targets, context, units))
        yield Piece(a, b, c, d, fresh=offset == 0)


def _before(pack: Pack, begin: int, end: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The tokens before those of `begin` to `end`. Before the first stands the end of a document."""
    if begin:
        return pack.read(begin - 1, end - 1)
    return np.concatenate([[pack.end_of_document], pack.read(0, end - 1)])


def batch_pieces(batches: Batches | Iterable[Batch]) -> Iterator[Piece]:
    """Training batches as pieces: every sequence is a unit and begins empty. `Batches` give one epoch."""
    found = map(batches.__getitem__, range(len(batches))) if isinstance(batches, Batches) else batches
    first = 0
    for batch in found:
        inputs, targets = batch.inputs, batch.targets
        if batch.cu_seqlens is None:
            context = torch.arange(1, inputs.shape[1] + 1).expand_as(inputs)
            units = torch.arange(first, first + len(inputs))[:, None].expand_as(inputs)
        else:
            lengths = batch.cu_seqlens.diff().to("cpu", torch.int64)
            starts = batch.cu_seqlens[:-1].to("cpu", torch.int64).repeat_interleave(lengths)
            context = (torch.arange(1, len(starts) + 1) - starts)[None]
            units = torch.arange(first, first + len(lengths)).repeat_interleave(lengths)[None]
        first = int(units.max()) + 1 if units.numel() else first
        yield Piece(inputs, targets, context, units, True, batch.cu_seqlens)


def count_bytes(pack: Pack, tokens: int) -> float:
    """Bytes of the text behind the first `tokens` of a split; of a document that is cut, its share."""
    if tokens >= pack.tokens:
        return float(pack.bytes)
    begin, total = 0, 0.0
    for number in range(len(pack)):
        size = len(pack.document(number))
        total += pack.document_bytes(number) * min(1.0, (tokens - begin) / size)
        begin += size
        if begin >= tokens:
            break
    return total
