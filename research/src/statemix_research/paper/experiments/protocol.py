"""How the experiments train: the paper's protocol for its synthetic tasks, and a tiny one that shows that all works."""

from __future__ import annotations

from typing import Any

from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BDLRU, HARD, HLRU, MODEL_SPECS
from statemix_research.sweeps.tasks import PERMUTATIONS, RECALL, task_labels

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

SIZES = (
    ("parameters", 40_000), ("parameters", 100_000), ("parameters", 300_000), ("parameters", 1_000_000),
    ("state", 128), ("state", 512),
)  # fmt: skip
"""Sizes of one mixer: the paper's span in parameters, and its row of equal states beside a larger one."""

ALL = tuple(name for name in MODEL_SPECS if name not in HARD)
BLOCKS = [MODEL_SPECS[name].label for name in BDLRU]
TASKS = task_labels((*RECALL, *PERMUTATIONS))
FOUR_TASKS = ["compression", "selective copying", "in-context recall", "S5"]
REPRESENTATIVE = [
    "BD-LRU m = 1", "BD-LRU m = 4", "BD-LRU m = 8", "H-LRU m = 4", "LSTM", "Mamba-2", "Gated DeltaNet", "Attention",
]  # fmt: skip
"""Eight models of different kinds, for figures with a line for each."""

SECOND_HAND = "arXiv 2602.12021, second-hand"
"""Numbers that were taken from a summary of the paper."""


def tiny(**task: Any) -> dict[str, Any]:
    """`TINY` with other options of the task."""
    return {**TINY, "task": {**TINY["task"], **task}}


def small(tasks: tuple[str, ...], models: tuple[str, ...], **axes: Any) -> Sweep:
    """A sweep of the tiny protocol: two seeds, two rates, a state of 16 numbers and one layer unless said."""
    chosen: dict[str, Any] = {
        "sizes": (("state", 16),), "rates": (3e-3, 1e-2), "seeds": (0, 1), "depths": (1,), "settings": TINY, **axes,
    }  # fmt: skip
    return Sweep(tasks, models, **chosen)


def on_paper_tasks(
    models: tuple[str, ...], sizes: tuple[tuple[str, int], ...], probes: tuple[str, ...] = ()
) -> tuple[Sweep, ...]:
    """The paper's tasks: three of recall with three seeds, the groups with five."""
    return (
        Sweep(RECALL, models, sizes, RATES, SEEDS, settings=FULL, probes=probes),
        Sweep(PERMUTATIONS, models, sizes, RATES, TRACKING_SEEDS, settings=FULL, probes=probes),
    )


LAYERS = (*BDLRU, *HLRU)
"""Every BD-LRU and H-LRU."""
