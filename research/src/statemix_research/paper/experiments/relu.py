"""The ReLU gate."""

from __future__ import annotations

from typing import Any

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import FULL, RATES, SEEDS, small
from statemix_research.sweeps.grid import Sweep

_AXES: dict[str, Any] = {
    "transition_biases": (0.0, 1.0),
    "normalizations": ("softmax", "relu"),
    "probes": ("memory",),
}
_GATE = ("normalization", "transition_bias")
_USUAL = {"model": "BD-LRU m = 1", "task": "compression", "transition_bias": 0.0}


def _table(title: str, value: str = "accuracy", task: str = "compression") -> Table:
    return Table(f"{title} ({task})", columns=_GATE, value=value, where={"task": task})


EXPERIMENT = Experiment(
    "relu",
    "The ReLU gate",
    "Does the ReLU gate fail because it begins without memory? Half of a fresh layer's ReLU gates are exactly 0, and a "
    "row whose transitions are all 0 forgets its state and passes no gradient. Softmax and ReLU are compared with "
    "transitions that start as usual (bias 0) and open (bias 1).",
    presets={
        "full": (
            Sweep(("compression", "in_context_recall"),
                  ("bdlru-1", "bdlru-2", "bdlru-4", "bdlru-8", "hlru-2", "hlru-4"), (("parameters", 100_000),), RATES,
                  SEEDS, settings=FULL, **_AXES),
        ),
        "small": (small(("compression",), ("bdlru-1", "bdlru-3"), rates=(1e-2,), **_AXES),),
    },
    tables=(
        _table("Accuracy"),
        _table("Accuracy", task="in-context recall"),
        _table("Share of blocks that have forgotten everything after 16 tokens, before training", "forgotten_at_start"),
        _table("Share of blocks that have forgotten everything after 16 tokens, trained", "forgotten"),
        _table("What is left of a state after 16 tokens, median over blocks, before training", "left_at_start"),
        _table("Share of gates that no token opens, trained", "silent"),
    ),
    figures={
        "relu": Figure("Compression against m", x="m", series=_GATE, panel="layer", where={"task": "compression"}),
    },
    claims=(
        Claim("The ReLU gate fails on compression: below softmax at m = 1", {**_USUAL, "normalization": "relu"},
              "below", against={**_USUAL, "normalization": "softmax"}),
    ),
)  # fmt: skip
