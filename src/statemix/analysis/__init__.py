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
from statemix.analysis.selection import (
    SelectionSummary,
    accuracy_by_position,
    collision_penalty,
    gradient_by_position,
    jump,
    ranks,
    ranks_along,
    select,
    selected_columns,
    selection_summary,
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
    "BlockReading",
    "Proof",
    "SelectionSummary",
    "Spread",
    "accuracy_by_position",
    "collision_penalty",
    "companion",
    "flops_per_token",
    "flops_per_token_of",
    "gradient_by_position",
    "has_transitions",
    "inputs_of",
    "jump",
    "mixer_parameters",
    "mixers",
    "parameters",
    "prove",
    "ranks",
    "ranks_along",
    "select",
    "selected_columns",
    "selection_summary",
    "spectrum_summary",
    "spread",
    "state_size",
    "transition_eigenvalues",
]
