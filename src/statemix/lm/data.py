"""Micro-batches of a pack: which sequences a step reads depends on its number alone, not on the processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from statemix.lm.config import LMConfig
from statemix.packs import Batch, Batches, Pack
from statemix.training.files import digest_of

VALIDATION = "validation"


def pack_id(pack: Pack) -> str:
    """The digest of a pack's tokens and tokenizer, wherever it lies."""
    return digest_of({"splits": pack.meta["splits"], "tokenizer": pack.meta["recipe"]["tokenizer"]["sha256"]})


def arguments(batch: Any) -> dict[str, Tensor]:
    """A `Batch` as the arguments of `LanguageModelLoss`."""
    tensors = {"tokens": batch.tokens}
    return tensors if batch.cu_seqlens is None else tensors | {"cu_seqlens": batch.cu_seqlens}


def leave_group(worker: int) -> None:
    """Signals to the run's whole group, from a terminal or torchrun, are for the run to handle, not for its readers."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def build_loader(
    config: LMConfig, pack: Pack, *, accumulation: int, start: int, rank: int, world_size: int
) -> DataLoader[Any]:
    """The micro-batches of steps `start` to the last, `accumulation` of them a step, for one process.

    Micro-batch a of step s holds sequences (s·A + a)·b to (s·A + a + 1)·b of the endless order of
    `statemix.packs.Batches`, b of them over all processes: a step reads the same A·b sequences on any number of
    processes.
    """
    data, training = config.data, config.training
    batches = Batches(
        pack, training.batch_size // accumulation, data.length, seed=training.seed, rank=rank, world_size=world_size,
        cu_seqlens=data.documents,
    )  # fmt: skip
    return DataLoader(
        batches, batch_size=None, sampler=range(start * accumulation, training.steps * accumulation),
        collate_fn=arguments, num_workers=data.workers, worker_init_fn=leave_group,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


def held_out_batches(
    config: LMConfig, pack: Pack, *, rows: int, rank: int, world_size: int
) -> Iterator[dict[str, Tensor]]:
    """Held-out sequences 0 to E - 1, `rows` at a time, process r taking r, r + world_size and on.

    Every process gets as many batches, as sharded models need it: a row that fills a batch up is not `counted`.
    """
    one = Batches(pack, 1, config.data.length, seed=None, cu_seqlens=config.data.documents)
    count = min(config.data.eval_sequences or one.sequences, one.sequences)
    share = -(-count // world_size)
    for first in range(0, share, rows):
        numbers = [rank + world_size * place for place in range(first, min(first + rows, share))]
        batches = [one[min(number, count - 1)] for number in numbers]
        counted = torch.tensor([number < count for number in numbers])
        yield {**_joined(batches), "counted": counted}


def _joined(batches: list[Batch]) -> dict[str, Tensor]:
    """Rows of one sequence each, one below the other."""
    tokens = torch.cat([batch.tokens for batch in batches])
    bounds = [batch.cu_seqlens for batch in batches if batch.cu_seqlens is not None]
    if not bounds:
        return {"tokens": tokens}
    length = tokens.shape[1] - 1
    shifted = [bound[1:] + row * length for row, bound in enumerate(bounds)]
    return {"tokens": tokens, "cu_seqlens": torch.cat([bounds[0][:1], *shifted])}
