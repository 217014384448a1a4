"""What the gates learn: figure 2 (normalisations), the ReLU gate, figure 3 (eigenvalues)."""

from __future__ import annotations

from typing import Any

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import FULL, LAYERS, RATES, SEEDS, TRACKING_SEEDS, small
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BDLRU, HLRU

from statemix.ops import NORMALIZATIONS

_PARAMETERS = {"matched_on": "parameters"}
_SOFTMAX = {**_PARAMETERS, "normalization": "softmax"}

FIG2 = Experiment(
    "fig2",
    "Figure 2: compression against m for each normalisation",
    "Which normalisation of the gates compresses best, for H-LRU (A) and BD-LRU (B), m from 1 to 16?",
    presets={
        "full": (
            Sweep(("compression",), (*HLRU, *BDLRU), (("parameters", 100_000), ("state", 128)), RATES, SEEDS,
                  normalizations=tuple(NORMALIZATIONS), settings=FULL),
        ),
        "small": (
            small(("compression",), ("hlru-1", "hlru-3", "bdlru-1", "bdlru-3"), rates=(1e-2,),
                  normalizations=tuple(NORMALIZATIONS)),
        ),
    },
    tables=(
        Table("Compression at equal parameters", ("layer", "normalization"), ("m",), where=_PARAMETERS),
        Table("Compression at equal state", ("layer", "normalization"), ("m",), where={"matched_on": "state"}),
    ),
    figures={
        "fig2": Figure("Compression against m", x="m", series=("normalization",), panel="layer"),
    },
    claims=(
        Claim("H-LRU is the most parameter-efficient on compression: m = 4 above BD-LRU m = 4 at equal parameters",
              {"model": "H-LRU m = 4", **_SOFTMAX}, "above", against={"model": "BD-LRU m = 4", **_SOFTMAX}),
    ),
)  # fmt: skip

_AXES: dict[str, Any] = {
    "transition_biases": (0.0, 1.0),
    "normalizations": ("softmax", "relu"),
    "probes": ("memory",),
}
_GATE = ("normalization", "transition_bias")
_USUAL = {"model": "BD-LRU m = 1", "task": "compression", "transition_bias": 0.0}


def _table(title: str, value: str = "accuracy", task: str = "compression") -> Table:
    return Table(f"{title} ({task})", columns=_GATE, value=value, where={"task": task})


RELU = Experiment(
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


def _spectrum(m: int, value: str, relation: str, text: str) -> Claim:
    return Claim(text, {"model": f"BD-LRU m = {m}"}, relation, 0.005, value=value)


_SHOWN = [*(f"BD-LRU m = {m}" for m in (1, 2, 3, 4, 5, 8)), *(f"H-LRU m = {m}" for m in (3, 8))]

FIG3 = Experiment(
    "fig3",
    "Figure 3: eigenvalues learned on S5",
    "Which eigenvalues do the learned transitions have on the permutations of five elements, for each m?",
    presets={
        "full": (
            Sweep(
                ("s5",), LAYERS, (("state", 320),), RATES, TRACKING_SEEDS, settings=FULL, probes=("spectrum",)
            ),
        ),
        "small": (
            small(("s5",), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-3"), rates=(1e-2,), probes=("spectrum",)),
        ),
    },
    tables=(
        Table("Accuracy on S5"),
        Table("Share of real negative eigenvalues", value="negative"),
        Table("Share of complex eigenvalues", value="complex"),
    ),
    figures={
        "fig3": Figure(
            "Eigenvalues of the learned transitions", kind="spectra", panel="model", where={"model": _SHOWN}
        ),
    },
    claims=(
        _spectrum(1, "negative", "below", "No negative eigenvalues at m = 1 (share below 0.005)"),
        *(_spectrum(m, "negative", "above", f"Negative eigenvalues at m = {m}") for m in (2, 3, 4, 5)),
        *(_spectrum(m, "complex", "below", f"No complex eigenvalues at m = {m}") for m in (1, 2)),
        *(_spectrum(m, "complex", "above", f"Complex eigenvalues at m = {m}") for m in (3, 4, 5)),
    ),
)
