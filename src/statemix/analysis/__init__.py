"""What a model costs and what it has learned: parameters, state and FLOPs; eigenvalues; statistics over seeds."""

from statemix.analysis.accounting import (
    flops_per_token,
    flops_per_token_of,
    mixer_parameters,
    mixers,
    parameters,
    state_size,
)
from statemix.analysis.spectra import (
    companion,
    has_transitions,
    inputs_of,
    spectrum_summary,
    transition_eigenvalues,
)
from statemix.analysis.statistics import Spread, spread

__all__ = [
    "Spread",
    "companion",
    "flops_per_token",
    "flops_per_token_of",
    "has_transitions",
    "inputs_of",
    "mixer_parameters",
    "mixers",
    "parameters",
    "spectrum_summary",
    "spread",
    "state_size",
    "transition_eigenvalues",
]
