"""Every experiment, one file each; a file is registered by its name here."""

from __future__ import annotations

from importlib import import_module

from statemix_research.paper.experiment import Experiment

NAMES = ("table1", "fig1c", "fig1d", "fig2", "relu", "fig3", "scaling", "fig5", "lengths", "mad")
"""The registry: the files of this folder that define an EXPERIMENT, in the order of the paper."""

EXPERIMENTS: dict[str, Experiment] = {name: import_module(f"{__name__}.{name}").EXPERIMENT for name in NAMES}
"""Every experiment by name."""


def get_experiment(name: str) -> Experiment:
    """The experiment of that name. ValueError listing the known ones."""
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment: got {name!r}, expected one of {', '.join(map(repr, EXPERIMENTS))}")
    return EXPERIMENTS[name]
