"""Appendix: accuracy against hidden size."""

from __future__ import annotations

from statemix_research.paper.experiment import Experiment, Figure, Table
from statemix_research.paper.experiments.protocol import ALL, REPRESENTATIVE, on_paper_tasks, small, tiny

_SIZES = (("width", 2), ("width", 6))

EXPERIMENT = Experiment(
    "scaling",
    "Appendix: accuracy against hidden size",
    "How does accuracy grow with the state, over widths 16 to 512? A width is a number of blocks or channels, or the "
    "size of a hidden state or of a head.",
    presets={
        "full": on_paper_tasks(ALL, tuple(("width", n) for n in (16, 32, 64, 128, 256, 512))),
        "small": (
            small(("s3",), ("bdlru-1", "bdlru-3", "hlru-3", "lstm"), sizes=_SIZES, rates=(1e-2,)),
            small(("selective_copying",), ("bdlru-1", "bdlru-3"), sizes=_SIZES, rates=(1e-2,), settings=tiny(copies=2)),
        ),
    },
    tables=(Table("Accuracy by width", rows=("model", "size")),),
    figures={
        "scaling": Figure("Accuracy against the numbers carried", x="state_size", log_x=True,
                          where={"model": REPRESENTATIVE}),
    },
)  # fmt: skip
