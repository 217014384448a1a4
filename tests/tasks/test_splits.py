"""Splits are disjoint where they say so; the same call gives the same rows and touches nothing else."""

from __future__ import annotations

import pytest
import torch

from statemix.tasks import SPLITS, TASKS, get_task
from statemix.tasks.splits import buckets

LENGTHS = {"selective_copying": 33, "fuzzy_recall": 24, "memorization": 4}


def rows(inputs: torch.Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, inputs.tolist()))


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_instance(name: str) -> None:
    """A row's bucket is a function of the row, and each split has buckets of its own."""
    task = get_task(name)
    for length in (task.length, LENGTHS.get(name, 12)):
        assert task.divides(length)
        assert "no sequence of keys" in task.overlap_at(length) or "never share" in task.overlap_at(length)
        assert str(length) in task.overlap_at(length)
        for split, owned in SPLITS.items():
            inputs = task.generate(50, length=length, split=split).inputs
            assert set(buckets(inputs).tolist()) <= set(owned)
    assert sorted(bucket for owned in SPLITS.values() for bucket in owned) == list(range(10))


@pytest.mark.parametrize(("name", "options"), [("parity", {}), ("cyclic", {"n": 2})])
def test_smallest_divided_space_is_divided_completely(name: str, options: dict[str, object]) -> None:
    task, counts = get_task(name, **options), {"train": 12_000, "validation": 1500, "test": 1500}
    parts = [rows(task.generate(counts[split], length=10, split=split).inputs) for split in SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 2**10
    assert len(parts[0]) > 750 and min(map(len, parts)) > 60


@pytest.mark.parametrize(
    ("name", "options", "length"),
    [
        ("parity", {}, 2),
        ("even_pairs", {}, 9),
        ("cycle_navigation", {}, 6),
        ("modular_arithmetic", {}, 4),
        ("permutation", {"n": 2}, 9),
        ("alternating", {"n": 3}, 2),
        ("cyclic", {"n": 2}, 1),
        ("compression", {"vocab_size": 3}, 8),
        ("in_context_recall", {}, 4),
        ("fuzzy_recall", {}, 18),
        ("memorization", {}, 2),
        ("selective_copying", {"vocab_size": 4, "copies": 2}, 5),
    ],
)
def test_small_spaces_are_shared_and_say_so(name: str, options: dict[str, object], length: int) -> None:
    task = get_task(name, **options, length=length)
    assert not task.divides() and "can" in task.overlap and task.overlap == task.overlap_at(length)
    train, test = (rows(task.generate(3000, split=split).inputs) for split in ("train", "test"))
    assert train & test


@pytest.mark.parametrize("name", TASKS)
def test_overlap_is_one_sentence(name: str) -> None:
    overlap = get_task(name).overlap
    assert overlap.endswith(".") and overlap.count(".") == 1 and "\n" not in overlap


@pytest.mark.parametrize("name", TASKS)
def test_the_same_call_gives_the_same_rows(name: str) -> None:
    task = get_task(name)
    first = task.generate(1100, seed=5, split="validation" if name == "parity" else "train")
    again = get_task(name).generate(1100, seed=5, split="validation" if name == "parity" else "train")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    fewer = task.generate(7, seed=5, split="validation" if name == "parity" else "train")
    assert torch.equal(fewer.inputs, first.inputs[:7]) and torch.equal(fewer.targets, first.targets[:7])
    assert not torch.equal(fewer.inputs, task.generate(7, seed=6).inputs)


@pytest.mark.parametrize("name", TASKS)
def test_global_random_state_and_defaults_do_not_matter(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = get_task(name).generate(20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            again = get_task(name).generate(20)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_buckets_follow_their_definition() -> None:
    """The hash once more with Python's integers."""
    mask = 2**64 - 1

    def mixed(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    inputs = torch.randint(2**20, (50, 17), generator=torch.Generator().manual_seed(0))
    for row, bucket in zip(inputs.tolist(), buckets(inputs).tolist(), strict=True):
        total = sum((token + 1) * mixed((t + 1) * golden & mask) for t, token in enumerate(row)) + 17
        assert bucket == (mixed(total * golden & mask) >> 1) % 10


def test_buckets_are_even_and_know_the_length() -> None:
    inputs = torch.randint(2, (50_000, 24), generator=torch.Generator().manual_seed(0))
    shares = buckets(inputs).bincount(minlength=10) / 50_000
    assert ((shares - 0.1).abs() < 0.01).all()
    zeros = [buckets(torch.zeros(1, length, dtype=torch.int64)).item() for length in range(1, 60)]
    assert len(set(zeros)) == 10
