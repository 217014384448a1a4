"""The tasks that experiments train on: a task with its options, and training settings of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskSpec:
    """A task by its name in tables, its options, and training settings of its own."""

    label: str
    task: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


TO_40 = {"train_lengths": list(range(3, 41)), "eval_lengths": [40, 64, 128, 256]}
"""Trained on lengths up to 40, tested beyond: the protocol of Delétang et al. (2022), as in PD-SSM's table 2."""

FROM_128 = {"eval_lengths": [128, 256, 512, 2048]}
"""Word problems of the groups, trained on 128 elements, as in DeltaProduct."""


def _group(label: str, name: str, n: int, **training: Any) -> TaskSpec:
    lengths = {"eval_lengths": [16, 32, 64, 128]}
    return TaskSpec(label, {"name": name, "n": n, "length": 16}, {**lengths, **training})


def _word(label: str, name: str, n: int) -> TaskSpec:
    return TaskSpec(label, {"name": name, "n": n, "length": 128}, {**FROM_128, "train_examples": 100_000})


def _regular(label: str, name: str) -> TaskSpec:
    return TaskSpec(label, {"name": name, "length": 40}, TO_40)


TASK_SPECS: dict[str, TaskSpec] = {
    "compression": TaskSpec("compression", {"name": "compression"}),
    "selective_copying": TaskSpec("selective copying", {"name": "selective_copying"}),
    "in_context_recall": TaskSpec("in-context recall", {"name": "in_context_recall"}),
    "noisy_recall": TaskSpec("noisy recall", {"name": "noisy_recall"}),
    "fuzzy_recall": TaskSpec("fuzzy recall", {"name": "fuzzy_recall"}),
    "memorization": TaskSpec("memorization", {"name": "memorization"}, {"train_examples": 256}),
    "s2": _group("S2", "permutation", 2),
    "s3": _group("S3", "permutation", 3),
    "s4": _group("S4", "permutation", 4),
    "s5": _group("S5", "permutation", 5, train_examples=100_000),
    "parity": _regular("parity", "parity"),
    "even_pairs": _regular("even pairs", "even_pairs"),
    "cycle_navigation": _regular("cycle navigation", "cycle_navigation"),
    "modular_arithmetic": _regular("modular arithmetic", "modular_arithmetic"),
    "s3_word": _word("S3, from 128", "permutation", 3),
    "s4_word": _word("S4, from 128", "permutation", 4),
    "a5_word": _word("A5, from 128", "alternating", 5),
    "s5_word": _word("S5, from 128", "permutation", 5),
}
"""Every task by the name that a sweep uses."""

RECALL = ("compression", "selective_copying", "in_context_recall")
PERMUTATIONS = ("s2", "s3", "s4", "s5")
REGULAR = ("parity", "even_pairs", "cycle_navigation", "modular_arithmetic")
WORDS = ("s3_word", "s4_word", "a5_word", "s5_word")
MAD = (*RECALL, "noisy_recall", "fuzzy_recall", "memorization")


def get_task_spec(name: str) -> TaskSpec:
    """The task of that name. ValueError listing the known ones."""
    if name not in TASK_SPECS:
        raise ValueError(f"task: got {name!r}, expected one of {', '.join(TASK_SPECS)}")
    return TASK_SPECS[name]


def task_labels(names: tuple[str, ...]) -> list[str]:
    """The labels of some tasks."""
    return [get_task_spec(name).label for name in names]
