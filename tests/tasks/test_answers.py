"""Targets against plain-Python solvers, at default sizes and at any."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statemix.tasks import SPLITS, TASKS, Examples, Task, get_task
from tests.tasks.solvers import SOLVERS

SEEDS = st.integers(0, 2**40)
EITHER = st.sampled_from(["last", "every"])


@st.composite
def automata(draw: st.DrawFn) -> dict[str, Any]:
    """The options of any small automaton."""
    states = [f"q{i}" for i in range(draw(st.integers(1, 5)))]
    symbols = [f"s{i}" for i in range(draw(st.integers(1, 4)))]
    row = st.fixed_dictionaries({symbol: st.sampled_from(states) for symbol in symbols})
    return {
        "file": "",
        "generators": {},
        "table": {state: draw(row) for state in states},
        "start": draw(st.sampled_from(states)),
        "accepting": draw(st.lists(st.sampled_from(states), unique=True)),
        "target": draw(EITHER),
        "length": draw(st.integers(1, 60)),
    }


SMALL: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "compression": st.fixed_dictionaries({"vocab_size": st.integers(3, 20), "length": st.integers(2, 40)}),
    "selective_copying": st.fixed_dictionaries(
        {"vocab_size": st.integers(4, 20), "copies": st.integers(1, 9), "length": st.integers(19, 60)}
    ),
    "in_context_recall": st.fixed_dictionaries(
        {"vocab_size": st.integers(4, 40), "length": st.integers(2, 40).map(lambda pairs: 2 * pairs)}
    ),
    "noisy_recall": st.fixed_dictionaries(
        {
            "vocab_size": st.integers(12, 40),
            "noise_vocab": st.integers(1, 8),
            "noise": st.sampled_from([0, 0.0, 0.3, 0.9, 1, 1.0]),
            "length": st.integers(2, 40).map(lambda pairs: 2 * pairs),
        }
    ),
    "fuzzy_recall": st.integers(1, 4).flatmap(
        lambda m: st.fixed_dictionaries(
            {
                "vocab_size": st.integers(2 * m + 2, 30),
                "motif_size": st.just(m),
                "length": st.integers(6 * m, 80),
            }
        )
    ),
    "permutation": st.fixed_dictionaries({"n": st.integers(2, 5), "length": st.integers(1, 99)}),
    "alternating": st.fixed_dictionaries({"n": st.integers(3, 5), "length": st.integers(1, 99)}),
    "cyclic": st.fixed_dictionaries({"n": st.integers(2, 100), "length": st.integers(1, 99)}),
    "parity": st.fixed_dictionaries({"target": EITHER, "length": st.integers(1, 60)}),
    "even_pairs": st.fixed_dictionaries({"target": EITHER, "length": st.integers(1, 60)}),
    "cycle_navigation": st.fixed_dictionaries(
        {"modulus": st.integers(2, 9), "target": EITHER, "length": st.integers(1, 60)}
    ),
    "modular_arithmetic": st.fixed_dictionaries(
        {"modulus": st.integers(2, 9), "target": EITHER, "length": st.integers(1, 40)}
    ),
    "automaton": automata(),
}


@functools.cache
def many_of(name: str) -> Examples:
    """2000 test instances."""
    return get_task(name).generate(2000, split="test")


def check(task: Task, examples: Examples, split: str) -> None:
    for column in examples:
        assert column.dtype == torch.int64 and column.device.type == "cpu" and column.is_contiguous()
    assert int(examples.inputs.min()) >= 0 and int(examples.inputs.max()) < task.vocab_size
    assert int(examples.targets.max()) < task.vocab_size
    for inputs, targets in zip(*(column.tolist() for column in examples), strict=True):
        assert targets == SOLVERS[task.name](inputs, task.options, split)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", SOLVERS)
def test_targets_at_default_size(name: str, split: str) -> None:
    task = get_task(name)
    examples = task.generate(60, seed=3, split=split)
    assert examples.inputs.shape == examples.targets.shape == (60, task.input_length())
    check(task, examples, split)


@pytest.mark.parametrize("name", SOLVERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_targets_at_any_size(name: str, data: st.DataObject) -> None:
    options = data.draw(SMALL[name])
    split = data.draw(st.sampled_from(list(SPLITS)))
    task = get_task(name, **options)
    assert task.options == options and list(task.options) == list(TASKS[name].OPTIONS)
    check(task, task.generate(12, seed=data.draw(SEEDS), split=split), split)


@pytest.mark.parametrize("name", ["parity", "even_pairs", "cycle_navigation", "modular_arithmetic"])
def test_every_prefix_is_asked_if_wanted(name: str) -> None:
    task = get_task(name, target="every")
    check(task, task.generate(60, split="test"), "test")


@pytest.mark.parametrize("name", TASKS)
def test_a_length_at_the_call_is_as_good_as_the_option(name: str) -> None:
    by_call = get_task(name).generate(9, length=66, split="test")
    by_option = get_task(name, length=66).generate(9, split="test")
    assert all(torch.equal(a, b) for a, b in zip(by_call, by_option, strict=True))
    assert by_call.inputs.shape[1] == get_task(name).input_length(66)


@settings(max_examples=15, deadline=None)
@given(vocab_size=st.integers(5, 300), map_seed=st.integers(0, 9), pairs=st.integers(1, 20), seed=SEEDS)
def test_memorization_asks_one_map(vocab_size: int, map_seed: int, pairs: int, seed: int) -> None:
    task = get_task("memorization", vocab_size=vocab_size, map_seed=map_seed, length=2 * pairs)
    again = get_task("memorization", vocab_size=vocab_size, map_seed=map_seed)
    known: dict[int, int] = {}
    for source, split in ((task, "train"), (again, "validation"), (task, "test")):
        inputs, targets = source.generate(30, length=2 * pairs, seed=seed, split=split)
        assert (inputs[:, 1::2] == vocab_size - 1).all() and (targets[:, ::2] == -100).all()
        for key, value in zip(
            inputs[:, ::2].flatten().tolist(), targets[:, 1::2].flatten().tolist(), strict=True
        ):
            assert 0 <= key < (vocab_size - 1) // 2 <= value < vocab_size - 1
            assert known.setdefault(key, value) == value
    assert len(set(known.values())) == len(known)


def test_memorization_maps_differ_by_seed() -> None:
    rows = [get_task("memorization", map_seed=seed).generate(1).targets.tolist() for seed in range(3)]
    assert rows[0] != rows[1] != rows[2]


@pytest.mark.parametrize(
    ("name", "mean", "tolerance"),
    [("in_context_recall", 56.0, 0.1), ("noisy_recall", 43.7, 0.4), ("fuzzy_recall", 4.5, 0.3)],
)
def test_number_of_targets_in_a_test(name: str, mean: float, tolerance: float) -> None:
    """As many as the published generators give on average at the same sizes."""
    targets = many_of(name).targets
    assert abs((targets != -100).sum(dim=1).double().mean().item() - mean) < tolerance


def test_padding_of_fuzzy_recall() -> None:
    inputs = many_of("fuzzy_recall").inputs
    padding = (inputs == 15).sum(dim=1).double()
    assert padding.min() >= 2 and abs(padding.mean().item() - 4.9) < 0.15


@pytest.mark.parametrize(
    ("name", "length"), [("permutation", 2000), ("modular_arithmetic", 501), ("parity", 3000)]
)
def test_long_sequences(name: str, length: int) -> None:
    task = get_task(name)
    check(task, task.generate(2, length=length, split="test"), "test")


@pytest.mark.parametrize(
    ("name", "options", "columns"),
    [
        ("compression", {}, slice(0, 31)),
        ("permutation", {"n": 4}, slice(None)),
        ("alternating", {"n": 5}, slice(None)),
        ("cyclic", {"n": 9}, slice(None)),
        ("parity", {}, slice(None)),
        ("even_pairs", {}, slice(None)),
        ("cycle_navigation", {}, slice(None)),
        ("automaton", {}, slice(None)),
        ("modular_arithmetic", {}, slice(None, None, 2)),
        ("modular_arithmetic", {}, slice(1, None, 2)),
        ("selective_copying", {}, slice(240, 256)),
    ],
)
def test_free_tokens_are_uniform(name: str, options: dict[str, Any], columns: slice) -> None:
    examples = get_task(name, **options).generate(3000)
    source = examples.targets if name == "selective_copying" else examples.inputs
    counts = source[:, columns].flatten().bincount()
    counts = counts[counts > 0]
    expected = counts.double().mean()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(counts) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom) + 8
