"""The compiled CPU kernels (Numba): one work item owns up to LANES neighbouring blocks of one sequence for all of T.

It walks T in tiles of a few steps. A tile's raw gates go into scratch lines of at most WIDTH = steps x lanes numbers,
one line for each (row, column); the element-wise work (normalisation, gradients of the gates) runs along whole
lines, the recurrence itself along the lanes of one step. Lines are forgotten after their tile: neither the
normalised gates nor the transition matrices ever exist in memory, in either direction.

Tensors arrive as addresses with their strides in elements, so one compiled version serves every memory layout; a
stride of 1 along N takes the vectorised load. N is innermost in everything these kernels write but the state. Every
scratch array is an allocation of its own: two views of one allocation keep the compiler from vectorising (measured: 3
times slower).
"""

from __future__ import annotations

from statemix.ops.cpu_kernels.block import block_backward, block_forward
from statemix.ops.cpu_kernels.lanes import LANES
from statemix.ops.cpu_kernels.order import order_backward, order_forward

__all__ = ["KERNELS", "LANES"]

KERNELS = {
    "bdlru": (block_forward, block_backward),
    "affine": (block_forward, block_backward),
    "hlru": (order_forward, order_backward),
}
"""The forward and the reverse pass of each recurrence."""
