"""Training batches of a pack: any step's batch can be named at once, on any number of processes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from statemix.packs.pack import Pack


class Batch(NamedTuple):
    """Token ids int64 [B, T + 1], and where documents begin in the B·T inputs one after the other, or None.

    cu_seqlens: int32 [S + 1], from 0 to B·T; every row begins a sequence of its own.
    """

    tokens: Tensor
    cu_seqlens: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """[B, T]; [1, B·T] with `cu_seqlens`."""
        return self._laid_out(self.tokens[:, :-1])

    @property
    def targets(self) -> Tensor:
        """The next token of every input, in the same shape."""
        return self._laid_out(self.tokens[:, 1:])

    def _laid_out(self, rows: Tensor) -> Tensor:
        return rows if self.cu_seqlens is None else rows.reshape(1, -1)


class Batches(Dataset[Batch]):
    r"""The batches of a split, `batches[step]` for every step ≥ 0.

    The documents one after the other are cut into sequences: sequence i holds tokens i·T to (i + 1)·T, both included,
    so that each token but the first is a target once. An epoch takes every sequence once, in an order drawn from
    (seed, epoch), and goes over into the next within a batch. Row b of step s is sequence number s·B + b of this
    endless order. Nothing else is remembered: a resumed run begins at its step.

    pack: the split. batch_size: B, rows of all processes together. length: T. seed: of the order; None takes sequences
    as they lie, for evaluation. rank, world_size: process `rank` of `world_size` gets rows rank·B/world_size and on, so
    that another number of processes leaves the order as it is. cu_seqlens: also say where documents begin. Errors:
    ValueError for sizes that do not fit, IndexError for a negative step.

    For reading ahead, `torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(step, steps),
    num_workers=1, pin_memory=True)`.

    >>> import tempfile
    >>> from statemix.packs import build_source, prepare_pack
    >>> folder = tempfile.mkdtemp()
    >>> meta = prepare_pack(build_source(["stdlib"]), folder, max_tokens=10_000)
    >>> batches = Batches(Pack(folder), batch_size=4, length=128, seed=0, cu_seqlens=True)
    >>> batch = batches[1000]
    >>> tuple(batch.tokens.shape), tuple(batch.inputs.shape), int(batch.cu_seqlens[-1])
    ((4, 129), (1, 512), 512)
    """

    def __init__(
        self, pack: Pack, batch_size: int, length: int, *, seed: int | None = 0, rank: int = 0, world_size: int = 1,
        cu_seqlens: bool = False,
    ) -> None:  # fmt: skip
        for name, value in (("batch_size", batch_size), ("length", length), ("world_size", world_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: got {value!r}, expected an integer of at least 1")
        if batch_size % world_size:
            raise ValueError(
                f"batch_size: got {batch_size}, expected a multiple of world_size = {world_size}"
            )
        if seed is not None and seed < 0:
            raise ValueError(f"seed: got {seed}, expected None or an integer of at least 0")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: got {rank}, expected 0 to {world_size - 1}")
        self.pack, self.batch_size, self.length, self.seed = pack, batch_size, length, seed
        self.rows = batch_size // world_size
        """Of this process."""
        self.sequences = (pack.tokens - 1) // length
        """Of an epoch; fewer than `length` tokens at the end of the split are in none."""
        if self.sequences < 1:
            raise ValueError(
                f"length: got {length}, expected at most {pack.tokens - 1}: {pack.folder} has {pack.tokens} tokens in "
                f"{pack.split!r}"
            )
        self._first, self._cu_seqlens = rank * self.rows, cu_seqlens
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Whole batches of an epoch."""
        return self.sequences // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f"step: got {step}, expected at least 0")
        first = step * self.batch_size + self._first
        rows = np.empty((self.rows, self.length + 1), dtype=np.int64)
        for row in range(self.rows):
            start = self._sequence(first + row) * self.length
            rows[row] = self.pack.read(start, start + self.length + 1)
        return Batch(torch.from_numpy(rows), self._boundaries(rows[:, :-1]) if self._cu_seqlens else None)

    def _sequence(self, number: int) -> int:
        """The sequence at a place of the endless order."""
        epoch, place = divmod(number, self.sequences)
        if self.seed is None:
            return place
        if epoch != self._epoch:
            bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
            self._epoch, self._order = epoch, np.random.Generator(bits).permutation(self.sequences)
        return int(self._order[place])

    def _boundaries(self, inputs: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        """Where sequences begin in the inputs: every row, and behind every end of a document."""
        flat = inputs.reshape(-1)
        begins = np.zeros(len(flat) + 1, dtype=bool)
        begins[:: self.length] = True
        begins[1:] |= flat == self.pack.end_of_document
        return torch.from_numpy(np.flatnonzero(begins).astype(np.int32))
