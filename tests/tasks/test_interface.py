"""The registry, errors, rendering."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from statemix.tasks import IGNORED, TASKS, Task, get_task
from statemix.tasks.automata import cycle_notation
from statemix.tasks.tracking import is_even

NAMES = [
    "compression", "selective_copying", "in_context_recall", "noisy_recall", "fuzzy_recall", "memorization",
    "permutation", "cyclic", "alternating", "parity", "even_pairs", "cycle_navigation", "modular_arithmetic",
    "automaton",
]  # fmt: skip


def test_registry() -> None:
    assert list(TASKS) == NAMES
    for name, kind in TASKS.items():
        assert issubclass(kind, Task) and kind.name == name and kind.summary and "\n" not in kind.summary
        task = get_task(name)
        assert task.length == task.options["length"] and list(task.options) == list(kind.OPTIONS)
        assert task.backbone == ("autoencoder" if name == "compression" else "language_model")
        for option in kind.OPTIONS.values():
            assert option.meaning and option.accepts(option.default)


@pytest.mark.parametrize(
    ("name", "options", "vocab_size"),
    [
        ("compression", {}, 16), ("selective_copying", {}, 16), ("in_context_recall", {}, 16),
        ("noisy_recall", {}, 32), ("fuzzy_recall", {}, 16), ("memorization", {}, 256), ("permutation", {}, 6),
        ("permutation", {"n": 6}, 720), ("alternating", {"n": 5}, 60), ("cyclic", {"n": 7}, 7),
        ("parity", {}, 2),
        ("even_pairs", {}, 2), ("cycle_navigation", {}, 5), ("cycle_navigation", {"modulus": 2}, 3),
        ("modular_arithmetic", {}, 9), ("automaton", {}, 6), ("automaton", {"generators": {"a": [1, 0]}}, 2),
    ],
)  # fmt: skip
def test_vocab_size(name: str, options: dict[str, Any], vocab_size: int) -> None:
    assert get_task(name, **options).vocab_size == vocab_size


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match=r"task: got 'copying', expected one of 'compression', .*'parity'"):
        get_task("copying")
    with pytest.raises(ValueError, match=r"permutation.k: unknown option, expected one of n, length"):
        get_task("permutation", k=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("permutation", {"n": 7}, "permutation.n: got 7, expected an integer from 2 to 6"),
        ("permutation", {"n": "3"}, "permutation.n: got '3', expected an integer from 2 to 6"),
        ("permutation", {"n": True}, "permutation.n: got True, expected"),
        ("alternating", {"n": 2}, "alternating.n: got 2, expected an integer from 3 to 6"),
        ("cyclic", {"n": 1}, "cyclic.n: got 1, expected"),
        ("cyclic", {"length": 0}, "cyclic.length: got 0, expected an integer of at least 1"),
        ("parity", {"target": "all"}, "parity.target: got 'all', expected one of 'last', 'every'"),
        ("noisy_recall", {"noise": 1.5}, "noisy_recall.noise: got 1.5, expected a number from 0 to 1"),
        (
            "noisy_recall",
            {"noise": float("nan")},
            "noisy_recall.noise: got nan, expected a number from 0 to 1",
        ),
        ("noisy_recall", {"noise_vocab": 29}, "noise_vocab: got 29, expected at most vocab_size - 4 = 28"),
        ("in_context_recall", {"length": 127}, "in_context_recall.length: got 127, expected an even integer"),
        ("fuzzy_recall", {"vocab_size": 6}, "fuzzy_recall.vocab_size: got 6, expected at least 7"),
        ("fuzzy_recall", {"length": 17}, "fuzzy_recall.length: got 17, expected an integer of at least 18"),
        ("memorization", {"length": 31}, "memorization.length: got 31, expected an even integer"),
        ("selective_copying", {"length": 32}, "copying.length: got 32, expected an integer of at least 33"),
        (
            "compression",
            {"vocab_size": 2},
            "compression.vocab_size: got 2, expected an integer of at least 3",
        ),
        ("compression", {"length": None}, "compression.length: got None, expected"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_task(name, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1}, "count: got -1, expected an integer of at least 0"),
        ({"count": 2.0}, "count: got 2.0, expected"),
        ({"seed": "a"}, "seed: got 'a', expected an integer"),
        ({"split": "dev"}, "split: got 'dev', expected one of 'train', 'validation', 'test'"),
        ({"length": 0}, "parity.length: got 0, expected an integer of at least 1"),
        ({"length": 2.5}, "parity.length: got 2.5, expected an integer of at least 1"),
    ],
)
def test_generate_names_a_wrong_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_task("parity").generate(**{"count": 1, **arguments})


@pytest.mark.parametrize("name", ["in_context_recall", "memorization"])
def test_length_of_a_call_is_checked_like_the_option(name: str) -> None:
    task = get_task(name)
    for call in (
        lambda: task.generate(1, length=33),
        lambda: task.input_length(33),
        lambda: task.divides(33),
    ):
        with pytest.raises(ValueError, match=f"{name}.length: got 33, expected an even integer"):
            call()


@pytest.mark.parametrize("name", TASKS)
def test_no_instances(name: str) -> None:
    task = get_task(name)
    inputs, targets = task.generate(0, split="test")
    assert inputs.shape == targets.shape == (0, task.input_length()) and inputs.dtype == torch.int64


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", TASKS)
def test_render_shows_every_token(name: str, split: str) -> None:
    task = get_task(name)
    inputs, targets = (column[0] for column in task.generate(1, split=split))
    pieces = task.render(inputs, targets)
    assert pieces == task.render(inputs.tolist(), targets.tolist())
    words = []
    for token, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        answer = "" if target == IGNORED else f"→{task.answer_symbol(target)}"
        words.append(task.symbol(token) + answer)
    assert "".join(text for text, _ in pieces) == " ".join(words)
    dim = sum(style.startswith("dim ") for _, style in pieces)
    assert (
        dim == (targets == IGNORED).sum()
        and sum(style == "bold green" for _, style in pieces) == len(inputs) - dim
    )
    allowed = {"", "dim", "bold", "cyan", "yellow", "magenta", "red", "green", "white"}
    assert all(set(style.split(" ")) <= allowed for _, style in pieces)


def text(task: Task, inputs: list[int], targets: list[int]) -> str:
    return "".join(part for part, _ in task.render(inputs, targets))


def test_render_reads_well() -> None:
    assert text(get_task("permutation"), [1, 3, 0], [1, 2, 2]) == "(2 3)→(2 3) (1 2 3)→(1 2) e→(1 2)"
    assert text(get_task("modular_arithmetic"), [8, 3, 5, 4, 7, 2], [-100] * 5 + [1]) == "<pad> 3 + 4 * 2→1"
    assert text(get_task("cycle_navigation"), [0, 1, 2], [0, 1, 0]) == "stay→0 +1→1 -1→0"
    assert text(get_task("even_pairs"), [0, 1], [1, 0]) == "0→even 1→odd"
    assert text(get_task("memorization"), [3, 255], [-100, 200]) == "3 ?→200"
    assert text(get_task("selective_copying"), [14, 2, 15, 14], [-100, -100, -100, 2]) == "· 2 <copy> ·→2"


def test_render_distinguishes_keys_values_and_noise() -> None:
    styles = [style for _, style in get_task("noisy_recall").render([0, 8, 16, 0], [IGNORED, IGNORED, 3, 9])]
    assert styles[:6] == ["dim cyan", "", "dim yellow", "", "red", "dim"]


def test_render_wants_rows_of_one_length() -> None:
    with pytest.raises(ValueError, match="targets_row: got 1 positions, expected 2"):
        get_task("parity").render([0, 1], [0])


def test_group_elements() -> None:
    assert [get_task("permutation").symbol(i) for i in range(6)] == [
        "e",
        "(2 3)",
        "(1 2)",
        "(1 2 3)",
        "(1 3 2)",
        "(1 3)",
    ]
    assert cycle_notation((1, 0, 3, 2)) == "(1 2)(3 4)" and is_even((1, 0, 3, 2)) and not is_even((1, 0, 2))
    assert get_task("alternating", n=3).vocab_size == 3
    for name, n in (("permutation", 4), ("alternating", 5), ("cyclic", 12)):
        table = get_task(name, n=n).table  # type: ignore[attr-defined]
        size = torch.arange(len(table))
        assert torch.equal(table[0], size) and torch.equal(table[:, 0], size)
        assert torch.equal(table[table], table[:, table])  # (a·b)·c = a·(b·c)
        assert all(torch.equal(line.sort().values, size) for line in (*table, *table.T))
