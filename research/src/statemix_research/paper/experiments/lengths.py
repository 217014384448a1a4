"""Length generalisation."""

from __future__ import annotations

from statemix_research.paper.experiment import ANY_SIZE, Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import BLOCKS, FULL, TRACKING_SEEDS, small, tiny
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BASELINES, BDLRU, HLRU
from statemix_research.sweeps.tasks import REGULAR, WORDS, task_labels

_MODELS = (*BDLRU[1:], *HLRU[1:], *BASELINES, BDLRU[0])
_REGULAR = task_labels(REGULAR)
_SHOWN = [
    "BD-LRU m = 1", "BD-LRU m = 2", "BD-LRU m = 4", "H-LRU m = 4", "LSTM", "Mamba-2", "Gated DeltaNet", "RWKV-7",
]  # fmt: skip

_PUBLISHED = {
    "LSTM": (1.0, 0.0), "PD-SSM": (0.988, 0.009), "SLiCE, block-diagonal, b = 4": (0.838, 0.043),
    "Gated DeltaProduct": (0.807, 0.0), "xLSTM[1:1]": (0.705, 0.0), "Gated DeltaNet": (0.633, 0.0),
    "Mamba": (0.589, 0.0), "RWKV-7": (0.541, 0.0),
}  # fmt: skip
"""Mean accuracy over the four regular tasks and its deviation where one is given: PD-SSM, table 2."""

_RATES = (1e-3, 5e-4, 2e-3)

_TO_THE_END = {**FULL, "training": {**FULL["training"], "stop_accuracy": 0.0}}
"""What a run finds at longer lengths comes after it is right at its own."""

_SHORT = {**tiny(), "training": {**tiny()["training"], "train_lengths": [4, 6, 8]}}

LENGTHS = Experiment(
    "lengths",
    "Length generalisation",
    "How far beyond the trained length does each model go? Regular tasks are trained on lengths up to 40 and tested to "
    "256; word problems of S3, S4, A5 and S5 are trained at 128 and tested to 2048, with one and two layers.",
    presets={
        "full": (
            Sweep(REGULAR, _MODELS, (("parameters", 100_000),), _RATES, TRACKING_SEEDS, settings=_TO_THE_END),
            Sweep(WORDS, _MODELS, (("parameters", 100_000), ("state", 128)), _RATES, TRACKING_SEEDS,
                  depths=(1, 2), settings=_TO_THE_END),
        ),
        "small": (
            small(("parity", "even_pairs", "cycle_navigation"), ("bdlru-1", "bdlru-3"), rates=(1e-2,), settings=_SHORT),
            small(("modular_arithmetic",), ("bdlru-1", "bdlru-3"), rates=(1e-2,),
                  settings={**_SHORT, "task": {"length": 9}}),
            small(("s3_word", "a5_word"), ("bdlru-3", "hlru-3", "pdssm"), rates=(1e-2,), depths=(1, 2)),
        ),
    },
    tables=(
        Table("Regular tasks: mean accuracy over test lengths 40 to 256", value="mean_accuracy",
              over=(*ANY_SIZE, "depth"), where={"task": _REGULAR}, mean=True),
        Table("Words of S3 by test length, trained at 128", ("model", "depth"), ("test length",),
              where={"task": "S3, from 128"}),
        Table("Words of S4, A5 and S5 at the trained length", ("model", "depth"),
              where={"task": task_labels(WORDS[1:])}),
    ),
    figures={
        "lengths": Figure("Accuracy against test length, two layers", x="test length", log_x=True,
                          where={"model": _SHOWN, "depth": 2,
                                 "task": [*_REGULAR, "S3, from 128", "S4, from 128"]}),
        "lengths_mean": Figure("Mean over the four regular tasks and test lengths 40 to 256", kind="ranking",
                               y="mean_accuracy", panel="", over=(*ANY_SIZE, "depth"), across="task",
                               where={"task": _REGULAR}, published=_PUBLISHED),
    },
    claims=(
        Claim("A block-diagonal recurrence with soft rows exceeds the best published linear recurrence (PD-SSM, 0.988) "
              "in the mean of the four regular tasks", {"model": BLOCKS, "task": _REGULAR}, "above", 0.988,
              value="mean_accuracy", over=("model", *ANY_SIZE), across="task",
              source="PD-SSM, table 2; hard rows exceed it: [Learning automata](automata.md)"),
    ),
)  # fmt: skip
