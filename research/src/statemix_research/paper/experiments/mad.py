"""MAD: the six synthetic tasks."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import ALL, ANY_SIZE, FULL, RATES, SEEDS, small, tiny
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.tasks import MAD, task_labels

_SIX = task_labels(MAD)
_SMALL = ("bdlru-1", "bdlru-4", "hlru-4")
_NO_LENGTHS = {**tiny(length=24), "training": {**tiny()["training"], "eval_lengths": []}}
_CHOSEN = ("lr", "weight_decay")

EXPERIMENT = Experiment(
    "mad",
    "MAD: the six synthetic tasks",
    "How accurate are the models on compression, selective copying, in-context, noisy and fuzzy recall and "
    "memorization by the MAD protocol, learning rate and weight decay chosen on validation data?",
    presets={
        "full": (
            Sweep(MAD, ALL, (("parameters", 100_000), ("state", 128)), RATES, SEEDS, decays=(0.0, 0.1), settings=FULL),
        ),
        "small": (
            small(tuple(n for n in MAD if n not in ("selective_copying", "fuzzy_recall")), _SMALL, rates=(1e-2,)),
            small(("selective_copying",), _SMALL, rates=(1e-2,), settings=tiny(copies=2)),
            small(("in_context_recall",), ("bdlru-4", "attention"), sizes=(("parameters", 2000),), rates=(1e-2,)),
            small(("fuzzy_recall",), _SMALL, rates=(1e-2,), settings=_NO_LENGTHS),
        ),
    },
    tables=(
        Table("Accuracy at 100\u2009000 parameters per mixer", where={"matched_on": "parameters", "task": _SIX},
              over=_CHOSEN, mean=True),
        Table("Accuracy at equal state", where={"matched_on": "state", "task": _SIX}, over=_CHOSEN, mean=True),
    ),
    figures={
        "mad": Figure("Mean accuracy over the six tasks of MAD", kind="ranking", panel="",
                      over=(*ANY_SIZE, "weight_decay"), across="task", where={"task": _SIX}),
    },
    claims=tuple(
        Claim(f"{model}, mean of the six tasks: {number}", {"model": model, "task": _SIX}, number=number,
              over=(*ANY_SIZE, "weight_decay"), across="task", source="published MAD averages")
        for model, number in (("Attention", 0.745), ("DeltaNet", 0.718))
    ),
)  # fmt: skip
