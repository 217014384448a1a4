"""Figure 1D: accuracy against block size and order."""

from __future__ import annotations

from statemix_research.paper.experiment import Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import ANY_SIZE, LAYERS, SIZES, on_paper_tasks, small
from statemix_research.paper.experiments.table1 import CLAIMS

EXPERIMENT = Experiment(
    "fig1d",
    "Figure 1D: accuracy against block size and order",
    "How does the accuracy of BD-LRU and H-LRU depend on m, with size and learning rate chosen on validation data?",
    presets={
        "full": on_paper_tasks(LAYERS, SIZES),
        "small": (small(("s3", "in_context_recall"), ("bdlru-1", "bdlru-2", "bdlru-3", "hlru-1", "hlru-3")),),
    },
    tables=(Table("Accuracy by m, size and learning rate chosen on validation data", over=ANY_SIZE),),
    figures={"fig1d": Figure("Accuracy against m", x="m", series=("layer",), over=ANY_SIZE)},
    claims=tuple(one for one in CLAIMS if one.text.startswith("BD-LRU") and not one.across),
)
