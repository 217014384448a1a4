"""Which sequences a step reads, however many processes and micro-batches share it."""

from __future__ import annotations

import pytest
import torch

from statemix.lm.data import build_loader, held_out_batches, pack_id
from statemix.packs import Pack
from tests.lm.small import config
from tests.packs.small import prepare

STEPS = 3


def rows_of_steps(made, pack, accumulation, processes, start=0):
    """The sequences of every step, in any order, as a set of tuples."""
    loaders = [
        build_loader(made, pack, accumulation=accumulation, start=start, rank=rank, world_size=processes)
        for rank in range(processes)
    ]
    steps = [[] for _ in range(STEPS)]
    for loader in loaders:
        for number, batch in zip(range(STEPS * accumulation), loader, strict=False):
            steps[number // accumulation] += [tuple(row) for row in batch["tokens"].tolist()]
    return [sorted(rows) for rows in steps]


@pytest.mark.parametrize(("accumulation", "processes"), [(1, 2), (2, 1), (4, 2), (1, 8)])
def test_a_step_reads_the_same_sequences_on_any_number_of_processes(pack, accumulation, processes):
    made, opened = config(pack), Pack(pack)
    alone = rows_of_steps(made, opened, 1, 1)
    assert [len(rows) for rows in alone] == [8] * STEPS and alone[0] != alone[1]
    assert rows_of_steps(made, opened, accumulation, processes) == alone


def test_a_loader_begins_at_any_step(pack):
    made, opened = config(pack), Pack(pack)
    later = rows_of_steps(made, opened, 2, 2, start=2)
    assert later[0] == rows_of_steps(made, opened, 1, 1)[2]


@pytest.mark.parametrize("documents", ["false", "true"])
@pytest.mark.parametrize(("rows", "processes"), [(1, 1), (4, 1), (2, 2), (4, 3)])
def test_held_out_sequences_count_once(pack, rows, processes, documents):
    made, opened = config(pack, f"data.documents={documents}"), Pack(pack, "validation")
    seen, batches = [], []
    for rank in range(processes):
        found = list(held_out_batches(made, opened, rows=rows, rank=rank, world_size=processes))
        batches.append(len(found))
        for batch in found:
            seen += [tuple(row) for row in batch["tokens"][batch["counted"]].tolist()]
            if documents == "true":
                assert batch["cu_seqlens"][-1] == batch["tokens"][:, 1:].numel()
                assert (batch["cu_seqlens"].diff() > 0).all() and batch["cu_seqlens"].dtype == torch.int32
    assert len(set(batches)) == 1
    assert sorted(seen) == sorted(tuple(opened.read(32 * k, 32 * k + 33).tolist()) for k in range(9))


def test_a_pack_is_known_by_its_content(pack, tmp_path):
    prepare(tmp_path / "same")
    prepare(tmp_path / "other", seed=1)
    assert pack_id(Pack(pack)) == pack_id(Pack(tmp_path / "same")) != pack_id(Pack(tmp_path / "other"))
