"""Figure 1C: accuracy against the cost of a step."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import (
    ALL,
    ANY_SIZE,
    FOUR_TASKS,
    REPRESENTATIVE,
    TASKS,
    on_paper_tasks,
    small,
)

EXPERIMENT = Experiment(
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
        Table("Accuracy, size and learning rate chosen on validation data", where={"task": TASKS}, over=ANY_SIZE,
              mean=True),
    ),
    figures={
        "fig1c": Figure("Accuracy against FLOPs of the recurrences per token", x="flops_per_step", log_x=True,
                        where={"model": REPRESENTATIVE, "task": FOUR_TASKS}),
    },
    claims=tuple(
        Claim(f"BD-LRU m = 4 matches or exceeds {called}, mean of seven tasks",
              {"model": "BD-LRU m = 4", "task": TASKS}, "above", against={"model": model, "task": TASKS}, over=ANY_SIZE,
              across="task")
        for called, model in (("the LSTM", "LSTM"), ("Mamba-2", "Mamba-2"), ("DeltaNet", "Gated DeltaNet"))
    ),
)  # fmt: skip
