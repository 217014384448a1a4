"""What a writer of a mixer needs: checks of arguments, where the weights are, and the dtype of a state.

A mixer is a module with `forward(x, state=None, cu_seqlens=None) -> (y, state)` on x [B, T, dim],
`step(x, state=None) -> (y, state)` on x [B, dim], and `initial_state(batch_size)`.
"""

from statemix.nn.plain import placement
from statemix.nn.projection import check_input, check_size
from statemix.ops.checks import check_cu_seqlens
from statemix.ops.layout import state_dtype

__all__ = ["check_cu_seqlens", "check_input", "check_size", "placement", "state_dtype"]
