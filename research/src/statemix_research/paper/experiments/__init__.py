"""Every experiment, in the order of the paper. One is added with an `Experiment` in a file and an entry here."""

from __future__ import annotations

from statemix_research.paper.experiment import Experiment
from statemix_research.paper.experiments import gates, hard, lengths, speed, synthetic

_ALL = (
    synthetic.TABLE1, synthetic.FIG1C, synthetic.FIG1D, gates.FIG2, gates.RELU, gates.FIG3, synthetic.SCALING,
    speed.FIG5, lengths.LENGTHS, synthetic.MAD, hard.HARD,
)  # fmt: skip

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
"""Every experiment by name."""

NAMES = tuple(EXPERIMENTS)


def get_experiment(name: str) -> Experiment:
    """The experiment of that name. ValueError listing the known ones."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(map(repr, EXPERIMENTS))}")
    return EXPERIMENTS[name]
