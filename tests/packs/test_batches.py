"""Batches: a function of (seed, step), the same for every number of processes, every sequence once an epoch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statemix.packs import Batches, Pack
from tests.packs.small import prepare

T = 64


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "pack"
    prepare(folder)
    return Pack(folder)


def test_an_epoch_takes_every_sequence_once(pack):
    batches = Batches(pack, 8, T, seed=3)
    everything = pack.read(0, pack.tokens).astype(np.int64)
    steps = -(-batches.sequences // 8)
    rows = torch.cat([batches[step].tokens for step in range(steps)])[: batches.sequences]
    wanted = {everything[k * T : k * T + T + 1].tobytes() for k in range(batches.sequences)}
    assert batches.sequences == (pack.tokens - 1) // T and len(batches) == batches.sequences // 8
    assert sorted(row.numpy().tobytes() for row in rows) == sorted(
        everything[k * T : k * T + T + 1].tobytes() for k in range(batches.sequences)
    )
    assert len(wanted) == batches.sequences
    in_order = Batches(pack, 8, T, seed=None)
    assert not torch.equal(rows[:8], in_order[0].tokens)


def test_targets_are_the_next_tokens_and_each_but_the_first_is_one(pack):
    batches = Batches(pack, 4, T, seed=None)
    targets = torch.cat([batches[step].targets for step in range(len(batches))]).flatten()
    assert targets.tolist() == pack.read(1, len(targets) + 1).tolist()
    batch = batches[0]
    assert batch.tokens.shape == (4, T + 1) and batch.tokens.dtype == torch.int64
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_the_number_of_processes_leaves_the_order(pack, seed, world_size):
    one = Batches(pack, 6, T, seed=seed)
    many = [Batches(pack, 6, T, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 1, len(one), 10 * len(one) + 3):  # the last two in later epochs
        assert torch.equal(torch.cat([part[step].tokens for part in many]), one[step].tokens)
        assert all(part[step].tokens.shape == (6 // world_size, T + 1) for part in many)


def test_a_step_needs_no_step_before_it(pack):
    straight = Batches(pack, 5, T, seed=1)
    run = [straight[step].tokens for step in range(3 * len(straight))]
    for step in (2 * len(straight) + 1, 0, len(straight), len(straight) - 1):
        assert torch.equal(Batches(pack, 5, T, seed=1)[step].tokens, run[step])
        assert torch.equal(straight[step].tokens, run[step])


def test_seeds_and_epochs_differ(pack):
    drawn = [Batches(pack, 32, T, seed=seed)[step].tokens for seed in (0, 1) for step in (0, 1)]
    drawn.append(Batches(pack, Batches(pack, 1, T).sequences, T, seed=0)[1].tokens[:32])  # the second epoch
    assert len({one.numpy().tobytes() for one in drawn}) == 5


def test_the_order_is_fixed_for_good(pack):
    """A resumed run of another version of NumPy must see the same batches."""
    batches = Batches(pack, 16, T, seed=7)
    places = [batches._sequence(number) for number in (0, 1, 2, 500, 5000)]
    digest = hashlib.sha256(batches[3].tokens.numpy().astype("<i8").tobytes()).hexdigest()[:16]
    assert (batches.sequences, places, digest) == GOLDEN


GOLDEN = (1333, [1223, 1067, 1015, 567, 8], "92269cf4da23b676")


@given(st.integers(1, 40), st.integers(1, 500))
def test_any_sizes(pack, batch_size, length):
    batches = Batches(pack, batch_size, length, cu_seqlens=True)
    batch = batches[3]
    assert batch.tokens.shape == (batch_size, length + 1)
    check_boundaries(batch, pack.end_of_document)


def check_boundaries(batch, end):
    rows, length = batch.tokens.shape[0], batch.tokens.shape[1] - 1
    flat = batch.tokens[:, :-1].flatten().tolist()
    wanted = [k for k in range(len(flat)) if k % length == 0 or flat[k - 1] == end] + [len(flat)]
    assert batch.cu_seqlens.tolist() == wanted
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.inputs.shape == batch.targets.shape == (1, rows * length)


def test_a_packed_batch_through_a_layer(pack):
    """Each document's states are those of the document alone."""
    from statemix import BDLRU

    torch.manual_seed(0)
    layer, embedding = BDLRU(8, block_size=2), torch.nn.Embedding(pack.vocab_size, 8)
    batch = Batches(pack, 3, 200, cu_seqlens=True)[0]
    assert len(batch.cu_seqlens) > 5
    y, _ = layer(embedding(batch.inputs), cu_seqlens=batch.cu_seqlens)
    for start, stop in zip(batch.cu_seqlens[:-1].tolist(), batch.cu_seqlens[1:].tolist(), strict=True):
        alone, _ = layer(embedding(batch.inputs[:, start:stop]))
        assert torch.allclose(y[:, start:stop], alone, atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_reads_ahead(pack, workers):
    batches = Batches(pack, 4, T, seed=2, cu_seqlens=True)
    loader = torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(5, 9), num_workers=workers)
    for step, batch in zip(range(5, 9), loader, strict=True):
        assert torch.equal(batch.tokens, batches[step].tokens)
        assert torch.equal(batch.cu_seqlens, batches[step].cu_seqlens)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size: got 0, expected an integer of at least 1"),
        ({"length": True}, "length: got True, expected an integer"),
        ({"length": 10**7}, r"length: got 10000000, expected at most \d+: .* tokens in 'train'"),
        ({"world_size": 3}, "batch_size: got 4, expected a multiple of world_size = 3"),
        ({"seed": -1}, "seed: got -1, expected None or an integer of at least 0"),
        ({"rank": 2, "world_size": 2}, "rank: got 2, expected 0 to 1"),
    ],
)
def test_sizes_that_do_not_fit(pack, options, said):
    with pytest.raises(ValueError, match=said):
        Batches(pack, **{"batch_size": 4, "length": T, **options})


def test_the_longest_sequence(pack):
    """It holds every token, the last one as a target alone."""
    whole = Batches(pack, 1, pack.tokens - 1)
    assert whole.sequences == 1
    assert whole[5].tokens[0].tolist() == pack.read(0, pack.tokens).tolist()
    with pytest.raises(ValueError, match=f"expected at most {pack.tokens - 1}: "):
        Batches(pack, 1, pack.tokens)


def test_negative_steps(pack):
    with pytest.raises(IndexError, match="step: got -1"):
        Batches(pack, 4, T)[-1]
