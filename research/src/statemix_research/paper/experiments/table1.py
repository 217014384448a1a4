"""Table 1: accuracy on the synthetic tasks."""

from __future__ import annotations

from statemix_research.paper.experiment import Claim, Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import (
    ALL,
    ANY_SIZE,
    BLOCKS,
    FOUR_TASKS,
    SECOND_HAND,
    SIZES,
    on_paper_tasks,
    small,
)
from statemix_research.sweeps.tasks import PERMUTATIONS, task_labels

GROUPS = task_labels(PERMUTATIONS)

SMALL = {"matched_on": "state", "size": 24}


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
        Claim(f"{model}, mean of S2 to S5: {number}", {"model": model, "task": GROUPS}, number=number, over=ANY_SIZE,
              across="task", source=SECOND_HAND)
        for model, number in (("Mamba-2", 0.35), ("Gated DeltaNet", 0.402), ("LSTM", 0.738))
    ),
    *(
        Claim(f"BD-LRU m = {m} on in-context recall: {number}",
              {"model": f"BD-LRU m = {m}", "task": "in-context recall"}, number=number, over=ANY_SIZE,
              source=SECOND_HAND)
        for m, number in ((1, 0.775), (2, 1.0), (3, 1.0), (4, 1.0))
    ),
    *(
        Claim(f"{model}, mean of compression, selective copying, in-context recall and S5: {number}",
              {"model": model, "task": FOUR_TASKS}, number=number, over=ANY_SIZE, across="task", source=SECOND_HAND)
        for model, number in (("BD-LRU m = 4", 0.922), ("Mamba-2", 0.842))
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
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
              over=ANY_SIZE, mean=True),
        _at("parameters", 100_000),
        _at("parameters", 1_000_000),
        Table("Accuracy at equal time per step: at most 1.1 times that of BD-LRU m = 4 with 100\u2009000 parameters",
              over=ANY_SIZE, time_of={"model": "BD-LRU m = 4", "matched_on": "parameters", "size": 100_000}),
        Table("Accuracy at 24 numbers of state per mixer (small preset)", where=SMALL),
        Table("Milliseconds per step (small preset)", value="milliseconds_per_step", where=SMALL, over=()),
    ),
    figures={
        "table1": Figure("Mean accuracy over compression, selective copying, in-context recall and S5", kind="ranking",
                         panel="", over=ANY_SIZE, across="task", where={"task": FOUR_TASKS}),
    },
    claims=CLAIMS,
)  # fmt: skip
