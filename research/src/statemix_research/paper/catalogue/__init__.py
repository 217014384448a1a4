"""Every experiment, as data: grids, tables, figures, and what the paper says."""

from __future__ import annotations

from statemix_research.paper.catalogue.comparisons import FIG1C, FIG1D, MAD, SCALING, TABLE1
from statemix_research.paper.catalogue.recurrences import FIG2, FIG3, LENGTHS, RELU
from statemix_research.paper.catalogue.speed import FIG5
from statemix_research.sweeps.experiment import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    one.name: one for one in (TABLE1, FIG1C, FIG1D, FIG2, RELU, FIG3, SCALING, FIG5, LENGTHS, MAD)
}
"""Every experiment by name."""


def get_experiment(name: str) -> Experiment:
    """The experiment of that name. ValueError listing the known ones."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(map(repr, EXPERIMENTS))}")
    return EXPERIMENTS[name]
