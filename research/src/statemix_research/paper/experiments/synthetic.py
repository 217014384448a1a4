"""The synthetic tasks of the paper: table 1, figures 1C and 1D, accuracy against hidden size; and MAD."""

from __future__ import annotations

from statemix_research.paper.experiment import ANY_SIZE, Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import (
    ALL,
    BLOCKS,
    FOUR_TASKS,
    FULL,
    LAYERS,
    RATES,
    REPRESENTATIVE,
    SECOND_HAND,
    SEEDS,
    SIZES,
    TASKS,
    on_paper_tasks,
    small,
    tiny,
)
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.tasks import MAD as MAD_TASKS
from statemix_research.sweeps.tasks import PERMUTATIONS, task_labels

_GROUPS = task_labels(PERMUTATIONS)

_SMALL = {"matched_on": "state", "size": 24}


def _at(matched_on: str, size: int) -> Table:
    return Table(
        f"Accuracy at {size:,} {matched_on} per mixer".replace(",", "\u2009"),
        where={"matched_on": matched_on, "size": size},
    )


CLAIMS = (
    *(
        Claim(f"BD-LRU on {group}: {number}", {"model": BLOCKS, "task": group}, number=number,
              over=("model", *ANY_SIZE), source=SECOND_HAND)
        for group, number in (("S3", 1.0), ("S4", 1.0), ("S5", 0.93))
    ),
    *(
        Claim(f"{model}, mean of S2 to S5: {number}", {"model": model, "task": _GROUPS}, number=number,
              across="task", source=SECOND_HAND)
        for model, number in (("Mamba-2", 0.35), ("Gated DeltaNet", 0.402), ("LSTM", 0.738))
    ),
    *(
        Claim(f"BD-LRU m = {m} on in-context recall: {number}",
              {"model": f"BD-LRU m = {m}", "task": "in-context recall"}, number=number,
              source=SECOND_HAND)
        for m, number in ((1, 0.775), (2, 1.0), (3, 1.0), (4, 1.0))
    ),
    *(
        Claim(f"{model}, mean of compression, selective copying, in-context recall and S5: {number}",
              {"model": model, "task": FOUR_TASKS}, number=number, across="task", source=SECOND_HAND)
        for model, number in (("BD-LRU m = 4", 0.922), ("Mamba-2", 0.842))
    ),
)  # fmt: skip

TABLE1 = Experiment(
    "table1",
    "Table 1: accuracy on the synthetic tasks",
    "How accurate are BD-LRU, H-LRU and the baselines on compression, selective copying, in-context recall and the "
    "permutation groups S2 to S5, at equal parameters, at equal state and at equal time per step?",
    presets={
        "full": on_paper_tasks(ALL, SIZES, ("step_time",)),
        "small": (
            small(("compression", "s3"), ("bdlru-1", "bdlru-3", "hlru-3", "lstm", "gated_deltanet"),
                  sizes=(("state", 24),), probes=("step_time",)),
            small(("s3",), ("bdlru-1", "bdlru-3"), sizes=(("parameters", 2000),), probes=("step_time",)),
        ),
    },
    tables=(
        Table("Mean of four tasks, size and learning rate chosen on validation data", where={"task": FOUR_TASKS},
              mean=True),
        _at("parameters", 100_000),
        _at("parameters", 1_000_000),
        Table("Accuracy at equal time per step: at most 1.1 times that of BD-LRU m = 4 with 100\u2009000 parameters",
              time_of={"model": "BD-LRU m = 4", "matched_on": "parameters", "size": 100_000}),
        Table("Accuracy at 24 numbers of state per mixer (small preset)", where=_SMALL),
        Table("Milliseconds per step (small preset)", value="milliseconds_per_step", where=_SMALL, over=()),
    ),
    figures={
        "table1": Figure("Mean accuracy over compression, selective copying, in-context recall and S5", kind="ranking",
                         panel="", across="task", where={"task": FOUR_TASKS}),
    },
    claims=CLAIMS,
)  # fmt: skip

FIG1C = Experiment(
    "fig1c",
    "Figure 1C: accuracy against the cost of a step",
    "How does accuracy grow with the floating-point operations of the recurrences per token, from 10 000 to 1 000 000 "
    "parameters per mixer?",
    presets={
        "full": (
            *on_paper_tasks(ALL, tuple(("parameters", n) for n in (40_000, 100_000, 300_000, 1_000_000))),
            *on_paper_tasks(tuple(name for name in ALL if name != "bdlru-16"), (("parameters", 10_000),)),
        ),
        "small": (small(("s5",), ("bdlru-1", "bdlru-3", "hlru-3", "lstm"), sizes=(("width", 4), ("width", 8))),),
    },
    tables=(
        Table("Accuracy, size and learning rate chosen on validation data", where={"task": TASKS}, mean=True),
    ),
    figures={
        "fig1c": Figure("Accuracy against FLOPs of the recurrences per token", x="flops_per_step", log_x=True,
                        where={"model": REPRESENTATIVE, "task": FOUR_TASKS}),
    },
    claims=tuple(
        Claim(f"BD-LRU m = 4 matches or exceeds {called}, mean of seven tasks",
              {"model": "BD-LRU m = 4", "task": TASKS}, "above", against={"model": model, "task": TASKS},
              across="task")
        for called, model in (("the LSTM", "LSTM"), ("Mamba-2", "Mamba-2"), ("DeltaNet", "Gated DeltaNet"))
    ),
)  # fmt: skip

FIG1D = Experiment(
    "fig1d",
    "Figure 1D: accuracy against block size and order",
    "How does the accuracy of BD-LRU and H-LRU depend on m, with size and learning rate chosen on validation data?",
    presets={
        "full": on_paper_tasks(LAYERS, SIZES),
        "small": (small(("s3", "in_context_recall"), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-1", "hlru-3")),),
    },
    tables=(Table("Accuracy by m, size and learning rate chosen on validation data"),),
    figures={"fig1d": Figure("Accuracy against m", x="m", series=("layer",))},
    claims=tuple(one for one in CLAIMS if one.text.startswith("BD-LRU") and not one.across),
)

_WIDTHS = (("width", 2), ("width", 6))

SCALING = Experiment(
    "scaling",
    "Appendix: accuracy against hidden size",
    "How does accuracy grow with the state, over widths 16 to 512? A width is a number of blocks or channels, or the "
    "size of a hidden state or of a head.",
    presets={
        "full": on_paper_tasks(ALL, tuple(("width", n) for n in (16, 32, 64, 128, 256, 512))),
        "small": (
            small(("s3",), ("bdlru-1", "bdlru-3", "hlru-3", "lstm"), sizes=_WIDTHS, rates=(1e-2,)),
            small(("selective_copying",), ("bdlru-1", "bdlru-3"), sizes=_WIDTHS, rates=(1e-2,),
                  settings=tiny(copies=2)),
        ),
    },
    tables=(Table("Accuracy by width", rows=("model", "size")),),
    figures={
        "scaling": Figure("Accuracy against the numbers carried", x="state_size", log_x=True,
                          where={"model": REPRESENTATIVE}),
    },
)  # fmt: skip

_SIX = task_labels(MAD_TASKS)
_FEW = ("bdlru-1", "bdlru-4", "hlru-4")
_NO_LENGTHS = {**tiny(length=24), "training": {**tiny()["training"], "eval_lengths": []}}
_CHOSEN = ("lr", "weight_decay")

MAD = Experiment(
    "mad",
    "MAD: the six synthetic tasks",
    "How accurate are the models on compression, selective copying, in-context, noisy and fuzzy recall and "
    "memorization by the MAD protocol, learning rate and weight decay chosen on validation data?",
    presets={
        "full": (
            Sweep(MAD_TASKS, ALL, (("parameters", 100_000), ("state", 128)), RATES, SEEDS, decays=(0.0, 0.1),
                  settings=FULL),
        ),
        "small": (
            small(tuple(n for n in MAD_TASKS if n not in ("selective_copying", "fuzzy_recall")), _FEW, rates=(1e-2,)),
            small(("selective_copying",), _FEW, rates=(1e-2,), settings=tiny(copies=2)),
            small(("in_context_recall",), ("bdlru-4", "attention"), sizes=(("parameters", 2000),), rates=(1e-2,)),
            small(("fuzzy_recall",), _FEW, rates=(1e-2,), settings=_NO_LENGTHS),
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
