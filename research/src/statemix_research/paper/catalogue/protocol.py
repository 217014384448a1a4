"""How the experiments train: the paper's protocol for its synthetic tasks, and a tiny one that shows that all works."""

from __future__ import annotations

from typing import Any

from statemix_research.sweeps.grid import Sweep

RATES = (1e-4, 5e-4, 1e-3)
"""The learning rates of the MAD protocol."""

SEEDS, TRACKING_SEEDS = (0, 1, 2), (0, 1, 2, 3, 4)
"""Three seeds everywhere, five where a run either finds the solution or does not."""

FULL: dict[str, Any] = {
    "model": {"dim": 128},
    "training": {
        "steps": 20_000, "warmup": 200, "log_every": 100, "eval_every": 500, "checkpoint_every": 5000,
        "stop_accuracy": 0.999,
    },
}  # fmt: skip
"""MAD: d = 128, batch 128, at most 20 000 steps of AdamW, stopped at 0.999 on validation data."""

TINY: dict[str, Any] = {
    "task": {"length": 8},
    "model": {"dim": 16},
    "training": {
        "steps": 40, "batch_size": 32, "warmup": 5, "train_examples": 256, "eval_examples": 64, "eval_every": 20,
        "log_every": 10, "checkpoint_every": 20, "train_lengths": [], "eval_lengths": [8, 16], "device": "cpu",
    },
}  # fmt: skip
"""Seconds on two cores; far too little to compare anything."""


def tiny(**task: Any) -> dict[str, Any]:
    """`TINY` with other options of the task."""
    return {**TINY, "task": {**TINY["task"], **task}}


def small(problems: tuple[str, ...], models: tuple[str, ...], **axes: Any) -> Sweep:
    """A sweep of the tiny protocol: two seeds, two rates, a state of 16 numbers and one layer unless said."""
    chosen: dict[str, Any] = {
        "sizes": (("state", 16),), "rates": (3e-3, 1e-2), "seeds": (0, 1), "depths": (1,), "settings": TINY, **axes,
    }  # fmt: skip
    return Sweep(problems, models, **chosen)
