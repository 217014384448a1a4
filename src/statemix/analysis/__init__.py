"""What a model costs and what it has learned: parameters, state and FLOPs; eigenvalues; the automaton
that a hard model follows; statistics over seeds."""

from statemix.analysis.accounting import (
    flops_per_token,
    flops_per_token_of,
    mixer_parameters,
    mixers,
    parameters,
    state_size,
)
from statemix.analysis.enumeration import BlockReading
from statemix.analysis.proof import Proof, prove
from statemix.analysis.spectra import (
    companion,
    has_transitions,
    inputs_of,
    spectrum_summary,
    transition_eigenvalues,
)
from statemix.analysis.statistics import Spread, spread

__all__ = [
    "BlockReading",
    "Proof",
    "Spread",
    "companion",
    "flops_per_token",
    "flops_per_token_of",
    "has_transitions",
    "inputs_of",
    "mixer_parameters",
    "mixers",
    "parameters",
    "prove",
    "spectrum_summary",
    "spread",
    "state_size",
    "transition_eigenvalues",
]
