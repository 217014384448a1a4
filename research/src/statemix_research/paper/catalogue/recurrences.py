"""About the recurrences themselves: normalisations (figure 2), the ReLU gate, learned spectra (figure 3), lengths."""

from __future__ import annotations

from typing import Any

from statemix_research.paper.catalogue.protocol import FULL, RATES, SEEDS, TRACKING_SEEDS, small, tiny
from statemix_research.sweeps.experiment import Claim, Experiment, FigureView, TableView
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BDLRU, HLRU, MODELS
from statemix_research.sweeps.problems import PROBLEMS, REGULAR, WORDS

from statemix.ops import NORMALIZATIONS

FIG2 = Experiment(
    "fig2",
    "Figure 2: compression against m for each normalisation",
    "Compression by H-LRU (A) and BD-LRU (B), m from 1 to 16, every normalisation of the gates.",
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
        TableView("Compression at equal parameters", rows=("layer", "normalization"), column="m",
                  where={"basis": "parameters"}, comparison="at equal parameters"),
        TableView("Compression at equal state", rows=("layer", "normalization"), column="m",
                  where={"basis": "state"}, comparison="at equal state"),
    ),
    figures=(
        FigureView("fig2", "Compression against m", x="m", series=("normalization",), panel="layer",
                   over=("basis", "size", "lr")),
    ),
    claims=(
        Claim("H-LRU is the most parameter-efficient on compression: m = 4 above BD-LRU m = 4 at equal parameters",
              {"model": "H-LRU m = 4", "basis": "parameters", "normalization": "softmax"}, "above",
              against={"model": "BD-LRU m = 4", "basis": "parameters", "normalization": "softmax"}),
    ),
)  # fmt: skip


_OPEN: dict[str, Any] = {
    "transition_biases": (0.0, 1.0),
    "normalizations": ("softmax", "relu"),
    "measures": ("memory",),
}
_GATES = ("model", "normalization", "transition_bias")
_GATED = ("bdlru-1", "bdlru-2", "bdlru-4", "bdlru-8", "hlru-2", "hlru-4")
_USUAL = {"model": "BD-LRU m = 1", "task": "compression", "transition_bias": 0.0}

RELU = Experiment(
    "relu",
    "The ReLU gate",
    "Half of a fresh layer's ReLU gates are exactly 0. A row whose transitions are all 0 forgets its state, and no "
    "gradient passes; the smaller m, the sooner everything is gone. A gate that is 0 on every input is silent, and "
    "learns nothing. Softmax against ReLU, with transitions that start as usual (bias 0) and open (bias 1): the "
    "accuracy, what is left of a state after 16 tokens, and how many gates are silent.",
    presets={
        "full": (
            Sweep(("compression", "in_context_recall"), _GATED, (("parameters", 100_000),), RATES, SEEDS, settings=FULL,
                  **_OPEN),
        ),
        "small": (small(("compression",), ("bdlru-1", "bdlru-3"), rates=(1e-2,), **_OPEN),),
    },
    tables=(
        TableView("Accuracy", rows=_GATES),
        TableView("Share of the blocks that have forgotten everything after 16 tokens, before training", rows=_GATES,
                  value="forgotten_at_start"),
        TableView("Share of the blocks that have forgotten everything after 16 tokens, trained", rows=_GATES,
                  value="forgotten"),
        TableView("What is left of a state after 16 tokens, the median over blocks, before training", rows=_GATES,
                  value="left_at_start"),
        TableView("Share of silent gates, trained", rows=_GATES, value="silent"),
    ),
    figures=(FigureView("relu", "Accuracy against m", x="m", series=("layer", *_GATES[1:])),),
    claims=(
        Claim("the ReLU gate fails on compression: below softmax at m = 1", {**_USUAL, "normalization": "relu"},
              "below", against={**_USUAL, "normalization": "softmax"}),
    ),
)  # fmt: skip


def _spectrum(m: int, value: str, relation: str, text: str) -> Claim:
    return Claim(
        text, {"model": f"BD-LRU m = {m}"}, relation, 0.005, value=value, over=("basis", "size", "lr")
    )


FIG3 = Experiment(
    "fig3",
    "Figure 3: eigenvalues learned on S5",
    "Eigenvalues of the learned transitions on the permutations of five things, for each m.",
    presets={
        "full": (
            Sweep(("s5",), (*BDLRU, *HLRU), (("state", 320),), RATES, TRACKING_SEEDS, settings=FULL,
                  measures=("spectrum",)),
        ),
        "small": (
            small(("s5",), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-3"), rates=(1e-2,), measures=("spectrum",)),
        ),
    },
    tables=(
        TableView("Accuracy on S5", where={}),
        TableView("Share of real negative eigenvalues", value="negative"),
        TableView("Share of complex eigenvalues", value="complex"),
    ),
    figures=(FigureView("fig3", "Eigenvalues of the learned transitions", kind="spectra", panel="model"),),
    claims=(
        _spectrum(1, "negative", "below", "no negative eigenvalues at m = 1"),
        *(_spectrum(m, "negative", "above", f"negative eigenvalues at m = {m}") for m in (2, 3, 4, 5)),
        *(_spectrum(m, "complex", "below", f"no complex eigenvalues at m = {m}") for m in (1, 2)),
        *(_spectrum(m, "complex", "above", f"complex eigenvalues at m = {m}") for m in (3, 4, 5)),
    ),
)  # fmt: skip

_LENGTH_MODELS = (*BDLRU[1:], *HLRU[1:], *(name for name in MODELS if not MODELS[name].ours), BDLRU[0])

_REGULAR_LABELS = [PROBLEMS[name].label for name in REGULAR]

_PUBLISHED = {
    "LSTM": (1.0, 0.0), "PD-SSM": (0.988, 0.009), "SLiCE, block-diagonal, b = 4": (0.838, 0.043),
    "Gated DeltaProduct": (0.807, 0.0), "xLSTM[1:1]": (0.705, 0.0), "Gated DeltaNet": (0.633, 0.0),
    "Mamba": (0.589, 0.0), "RWKV-7": (0.541, 0.0),
}  # fmt: skip
"""Mean accuracy over the four regular tasks and its deviation where one is given: PD-SSM, table 2."""

_RATES = (1e-3, 5e-4, 2e-3)
_DEEPER = {**FULL, "training": {**FULL["training"], "stop_accuracy": 0.0}}
"""Trained to the end: what a run finds at lengths beyond comes after it is right at its own."""

_SHORT = {**tiny(), "training": {**tiny()["training"], "train_lengths": [4, 6, 8]}}

LENGTHS = Experiment(
    "lengths",
    "Length generalisation",
    "Parity, even pairs, cycle navigation and modular arithmetic trained on lengths up to 40 and tested to 256; word "
    "problems of S3, S4, A5 and S5 trained at 128 and tested to 512 and 2048, with one and two layers.",
    presets={
        "full": (
            Sweep(REGULAR, _LENGTH_MODELS, (("parameters", 100_000),), _RATES, TRACKING_SEEDS, settings=_DEEPER),
            Sweep(WORDS, _LENGTH_MODELS, (("parameters", 100_000), ("state", 128)), _RATES, TRACKING_SEEDS,
                  depths=(1, 2), settings=_DEEPER),
        ),
        "small": (
            small(("parity", "even_pairs", "cycle_navigation"), ("bdlru-1", "bdlru-3"), rates=(1e-2,), settings=_SHORT),
            small(("modular_arithmetic",), ("bdlru-1", "bdlru-3"), rates=(1e-2,),
                  settings={**_SHORT, "task": {"length": 9}}),
            small(("s3_word", "a5_word"), ("bdlru-3", "hlru-3", "pdssm"), rates=(1e-2,), depths=(1, 2)),
        ),
    },
    tables=(
        TableView("Accuracy at the trained length", rows=("model", "depth"), over=("basis", "size", "lr")),
        TableView("Accuracy by test length", rows=("task", "depth", "model"), lengths=True,
                  over=("basis", "size", "lr")),
        TableView("The mean over test lengths, of the four regular tasks", value="mean_accuracy",
                  over=("basis", "size", "lr", "depth"), where={"task": _REGULAR_LABELS}, mean=True),
    ),
    figures=(
        FigureView("lengths", "Accuracy against test length", x="test length", series=("model", "depth"),
                   over=("basis", "size", "lr"), log_x=True),
        FigureView("lengths_mean", "Trained to 40, tested at 40 to 256: mean over the four regular tasks",
                   y="mean_accuracy", panel="", over=("basis", "size", "lr", "depth"), kind="ranking", across="task",
                   where={"task": _REGULAR_LABELS}, published=_PUBLISHED),
    ),
    claims=(
        Claim("the best published linear recurrence (PD-SSM) reaches 0.988 in the mean of the four regular tasks",
              {"model": [MODELS[name].label for name in BDLRU],
               "task": _REGULAR_LABELS},
              "above", 0.988, value="mean_accuracy", over=("model", "basis", "size", "lr"), across="task",
              source="PD-SSM, table 2"),
    ),
)  # fmt: skip
