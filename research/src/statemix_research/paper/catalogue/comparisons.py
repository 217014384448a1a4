"""Against rivals: table 1, figures 1C and 1D, accuracy by size, the MAD tasks."""

from __future__ import annotations

from statemix_research.paper.catalogue.protocol import FULL, RATES, SEEDS, TRACKING_SEEDS, small, tiny
from statemix_research.sweeps.experiment import Claim, Experiment, FigureView, TableView
from statemix_research.sweeps.grid import Sweep
from statemix_research.sweeps.models import BDLRU, HLRU, MODELS
from statemix_research.sweeps.problems import MAD as MAD_PROBLEMS
from statemix_research.sweeps.problems import PERMUTATIONS, PROBLEMS, RECALL

EQUAL = (
    ("parameters", 40_000),
    ("parameters", 100_000),
    ("parameters", 300_000),
    ("parameters", 1_000_000),
    ("state", 128),
    ("state", 512),
)
"""Sizes of one mixer: the paper's span in parameters, and its row of equal states beside a larger one."""

ALL = tuple(MODELS)
OURS = (*BDLRU, *HLRU)
GROUPS = [PROBLEMS[name].label for name in PERMUTATIONS]
TASKS = [PROBLEMS[name].label for name in (*RECALL, *PERMUTATIONS)]
FOUR = ["compression", "selective copying", "in-context recall", "S5"]
SIX = [PROBLEMS[name].label for name in MAD_PROBLEMS]
BLOCKS = [MODELS[name].label for name in BDLRU]
SIZES = ("basis", "size", "lr")

SMALL_RIVALS = ("lstm", "gated_deltanet")
SMALL_MAD = ("bdlru-1", "bdlru-4", "hlru-4")
COPYING = tiny(copies=2)


def _both(
    models: tuple[str, ...], sizes: tuple[tuple[str, int], ...], measures: tuple[str, ...] = ()
) -> tuple[Sweep, ...]:
    """The paper's tasks: three of recall with three seeds, the groups with five."""
    return (
        Sweep(RECALL, models, sizes, RATES, SEEDS, settings=FULL, measures=measures),
        Sweep(PERMUTATIONS, models, sizes, RATES, TRACKING_SEEDS, settings=FULL, measures=measures),
    )


def _table(comparison: str, basis: str, size: int) -> TableView:
    return TableView(
        f"Accuracy {comparison}: {size:,} {basis} in each mixer".replace(",", "\u2009"),
        where={"basis": basis, "size": size}, comparison=comparison,
    )  # fmt: skip


_PAPER = (
    *(
        Claim(f"BD-LRU reaches {number} on {group} (second-hand)", {"model": BLOCKS, "task": group}, "near", number,
              over=("model", *SIZES))
        for group, number in (("S3", 1.0), ("S4", 1.0), ("S5", 0.93))
    ),
    *(
        Claim(f"{model} reaches {number} over the permutations (second-hand)", {"model": model, "task": GROUPS}, "near",
              number, over=SIZES, across="task")
        for model, number in (("Mamba-2", 0.35), ("Gated DeltaNet", 0.402), ("LSTM", 0.738))
    ),
    *(
        Claim(f"in-context recall: {number} at m = {m} (second-hand)", {"model": f"BD-LRU m = {m}",
              "task": "in-context recall"}, "near", number, over=SIZES)
        for m, number in ((1, 0.775), (2, 1.0), (3, 1.0), (4, 1.0))
    ),
    *(
        Claim(f"{model}: {number} in the mean of four tasks (second-hand)", {"model": model, "task": FOUR}, "near",
              number, over=SIZES, across="task")
        for model, number in (("BD-LRU m = 4", 0.922), ("Mamba-2", 0.842))
    ),
)  # fmt: skip

TABLE1 = Experiment(
    "table1",
    "Table 1: accuracy on the synthetic tasks",
    "Compression, selective copying, in-context recall and the permutation groups S2 to S5 for BD-LRU, H-LRU and "
    "rivals, at equal parameters, at equal state and at equal time per step.",
    presets={
        "full": _both(ALL, EQUAL, ("pace",)),
        "small": (
            small(("compression", "s3"), ("bdlru-1", "bdlru-3", "hlru-3", *SMALL_RIVALS), sizes=(("state", 24),),
                  measures=("pace",)),
            small(("s3",), ("bdlru-1", "bdlru-3"), sizes=(("parameters", 2000),), measures=("pace",)),
        ),
    },
    tables=(
        _table("at equal parameters", "parameters", 40_000),
        _table("at equal parameters", "parameters", 100_000),
        _table("at equal parameters", "parameters", 300_000),
        _table("at equal parameters", "parameters", 1_000_000),
        _table("at equal state", "state", 128),
        _table("at equal state", "state", 512),
        TableView("The mean of four tasks, size and learning rate chosen on validation data", where={"task": FOUR},
                  over=SIZES, mean=True),
        TableView("Time of a training step, alone on the device: 100\u2009000 parameters in each mixer", over=(),
                  value="milliseconds_per_step", where={"basis": "parameters", "size": 100_000, "seed": 0}),
        TableView(
            "Accuracy at equal time per step: no slower than BD-LRU m = 4 of 100\u2009000 parameters",
            over=SIZES, comparison="at equal time per step",
            time_of={"model": "BD-LRU m = 4", "basis": "parameters", "size": 100_000},
        ),
        TableView("Accuracy at equal state: 24 numbers in each mixer (small preset)",
                  where={"basis": "state", "size": 24}, comparison="at equal state"),
        TableView("Accuracy at equal parameters: 2\u2009000 in each mixer (small preset)",
                  where={"basis": "parameters", "size": 2000}, comparison="at equal parameters"),
        TableView("Accuracy at equal time per step: no slower than BD-LRU m = 3 of 24 numbers (small preset)",
                  over=SIZES, comparison="at equal time per step",
                  time_of={"model": "BD-LRU m = 3", "basis": "state", "size": 24}),
    ),
    claims=_PAPER,
)  # fmt: skip

FIG1C = Experiment(
    "fig1c",
    "Figure 1C: accuracy against the cost of a step",
    "Accuracy against the floating-point operations of the recurrences per token, over sizes from 10 000 to 1 000 000 "
    "parameters a mixer.",
    presets={
        "full": (
            *_both(ALL, tuple(("parameters", n) for n in (40_000, 100_000, 300_000, 1_000_000))),
            *_both(tuple(name for name in ALL if name != "bdlru-16"), (("parameters", 10_000),)),
        ),
        "small": (small(("s3",), ("bdlru-1", "bdlru-3", "hlru-3", "lstm"), sizes=(("width", 4), ("width", 8))),),
    },
    tables=(TableView("Best accuracy over sizes and learning rates", where={"task": TASKS}, over=SIZES, mean=True),),
    figures=(
        FigureView("fig1c", "Accuracy against FLOPs per step", x="flops_per_step", series=("model",), log_x=True),
    ),
    claims=(
        *(
            Claim(f"BD-LRU m = 4 matches or exceeds {called} over the tasks",
                  {"model": "BD-LRU m = 4", "task": TASKS}, "above", against={"model": model, "task": TASKS},
                  over=SIZES, across="task")
            for called, model in (("the LSTM", "LSTM"), ("Mamba-2", "Mamba-2"), ("DeltaNet", "Gated DeltaNet"))
        ),
    ),
)  # fmt: skip

FIG1D = Experiment(
    "fig1d",
    "Figure 1D: accuracy against block size and order",
    "Accuracy of BD-LRU and H-LRU against m, for each task; size and learning rate chosen on validation data.",
    presets={
        "full": _both(OURS, EQUAL),
        "small": (small(("s3", "in_context_recall"), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-1", "hlru-3")),),
    },
    tables=(TableView("Accuracy by m, size and learning rate chosen on validation data", over=SIZES),),
    figures=(FigureView("fig1d", "Accuracy against m", x="m", series=("layer",), over=SIZES),),
    claims=tuple(one for one in _PAPER if one.text.startswith(("BD-LRU reaches", "in-context"))),
)

_WIDTHS = tuple(("width", n) for n in (16, 32, 64, 128, 256, 512))

SCALING = Experiment(
    "scaling",
    "Appendix: accuracy against hidden size",
    "Accuracy of every model on every task against its state, over widths 16 to 512."
    " A width is a number of blocks or channels, or the size of a hidden state or of a head.",
    presets={
        "full": _both(ALL, _WIDTHS),
        "small": (
            small(("s3",), ("bdlru-1", "bdlru-3", "hlru-3", "lstm"), sizes=(("width", 2), ("width", 6)), rates=(1e-2,)),
            small(("selective_copying",), ("bdlru-1", "bdlru-3"), sizes=(("width", 2), ("width", 6)), rates=(1e-2,),
                  settings=COPYING),
        ),
    },
    tables=(TableView("Accuracy by width", rows=("model", "size")),),
    figures=(FigureView("scaling", "Accuracy against the numbers carried", x="state_size", log_x=True),),
)  # fmt: skip

MAD = Experiment(
    "mad",
    "MAD: the six synthetic tasks",
    "Compression, selective copying, in-context, noisy and fuzzy recall and memorization by the MAD protocol: learning "
    "rate and weight decay chosen on validation data.",
    presets={
        "full": (
            Sweep(MAD_PROBLEMS, ALL, (("parameters", 100_000), ("state", 128)), RATES, SEEDS, decays=(0.0, 0.1),
                  settings=FULL),
        ),
        "small": (
            small(tuple(n for n in MAD_PROBLEMS if n not in ("selective_copying", "fuzzy_recall")),
                  SMALL_MAD, rates=(1e-2,)),
            small(("selective_copying",), SMALL_MAD, rates=(1e-2,), settings=COPYING),
            small(("in_context_recall",), ("bdlru-4", "attention"), sizes=(("parameters", 2000),), rates=(1e-2,)),
            small(("fuzzy_recall",), SMALL_MAD, rates=(1e-2,),
                  settings={**tiny(length=24), "training": {**tiny()["training"], "eval_lengths": []}}),
        ),
    },
    tables=(
        TableView("Accuracy at equal parameters: 100\u2009000 in each mixer",
                  where={"basis": "parameters", "task": SIX}, over=("lr", "weight_decay"),
                  comparison="at equal parameters", mean=True),
        TableView("Accuracy at equal state", where={"basis": "state", "task": SIX}, over=("lr", "weight_decay"),
                  comparison="at equal state", mean=True),
    ),
    claims=tuple(
        Claim(f"{model}: {number} in the mean of the six tasks", {"model": model, "task": SIX}, "near",
              number, over=("basis", "size", "lr", "weight_decay"), across="task", source="published MAD averages")
        for model, number in (("Attention", 0.745), ("DeltaNet", 0.718))
    ),
)  # fmt: skip
