"""The problems that experiments train on: a task with its options, and the training set that goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A task by its name in tables, its options, and training settings of its own."""

    label: str
    task: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


TO_40 = {"train_lengths": list(range(3, 41)), "eval_lengths": [40, 64, 128, 256]}
"""Trained on lengths up to 40, tested beyond: the protocol of Delétang et al. (2022) as PD-SSM's table 2 has it."""

FROM_128 = {"eval_lengths": [128, 256, 512, 2048]}
"""The word problems of the groups: trained on 128 elements, as DeltaProduct has them."""


def _group(label: str, task: str, n: int, **training: Any) -> Problem:
    return Problem(
        label, {"name": task, "n": n, "length": 16}, {"eval_lengths": [16, 32, 64, 128], **training}
    )


def _word(label: str, task: str, n: int) -> Problem:
    return Problem(label, {"name": task, "n": n, "length": 128}, {**FROM_128, "train_examples": 100_000})


PROBLEMS: dict[str, Problem] = {
    "compression": Problem("compression", {"name": "compression"}),
    "selective_copying": Problem("selective copying", {"name": "selective_copying"}),
    "in_context_recall": Problem("in-context recall", {"name": "in_context_recall"}),
    "noisy_recall": Problem("noisy recall", {"name": "noisy_recall"}),
    "fuzzy_recall": Problem("fuzzy recall", {"name": "fuzzy_recall"}),
    "memorization": Problem("memorization", {"name": "memorization"}, {"train_examples": 256}),
    "s2": _group("S2", "permutation", 2),
    "s3": _group("S3", "permutation", 3),
    "s4": _group("S4", "permutation", 4),
    "s5": _group("S5", "permutation", 5, train_examples=100_000),
    "parity": Problem("parity", {"name": "parity", "length": 40}, TO_40),
    "even_pairs": Problem("even pairs", {"name": "even_pairs", "length": 40}, TO_40),
    "cycle_navigation": Problem("cycle navigation", {"name": "cycle_navigation", "length": 40}, TO_40),
    "modular_arithmetic": Problem("modular arithmetic", {"name": "modular_arithmetic", "length": 40}, TO_40),
    "s3_word": _word("S3, from 128", "permutation", 3),
    "s4_word": _word("S4, from 128", "permutation", 4),
    "a5_word": _word("A5, from 128", "alternating", 5),
    "s5_word": _word("S5, from 128", "permutation", 5),
}
"""Every problem by the name that a sweep uses."""

RECALL = ("compression", "selective_copying", "in_context_recall")
PERMUTATIONS = ("s2", "s3", "s4", "s5")
REGULAR = ("parity", "even_pairs", "cycle_navigation", "modular_arithmetic")
WORDS = ("s3_word", "s4_word", "a5_word", "s5_word")
MAD = (*RECALL, "noisy_recall", "fuzzy_recall", "memorization")


def get_problem(name: str) -> Problem:
    """The problem of that name. ValueError listing the known ones."""
    if name not in PROBLEMS:
        raise ValueError(f"task: got {name!r}, expected one of {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
