"""The block-diagonal layer."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer, check_sizes
from statemix.nn.linear import read_out
from statemix.ops import bdlru_scan


class BDLRU(RecurrentLayer):
    r"""Block-diagonal linear recurrent unit: N blocks of m channels, each with its own dense m×m transition.

    $h_t = A_t h_{t-1} + a_{0,t} \odot v_t$, $y_t = W h_t$, where the gates (A_t, a_{0,t}) and the values v_t are linear
    in $x_t$ and every row of the gates is normalised. `forward` maps x [B, T, dim] to y [B, T, dim] and carries a
    state [S, N, m]; `step` takes one token. Parameters (selective): N·m·[(dim + 1)(m + 1) + 2·dim], and
    N·m of a learned initial state.

    Args:
        dim: Width of input and output.
        block_size: m, channels of a block.
        num_blocks: N; by default dim / m, rounded (from 64 on to a multiple of 8): a state of about `dim` numbers.
        normalization: A key of `statemix.ops.NORMALIZATIONS`.
        selective: Whether gates are a projection of the input; else they are free parameters, the same at every step.
        hard: Whether each row of the normalised gates keeps its largest weight alone, so that every channel copies
            one channel of its block or takes its value. Gradients are those of the soft rows.
        learned_initial_state: Whether sequences start from a parameter `initial` [N, m], drawn from N(0, 1), where no
            state is passed; else from zeros.
        gate_bias: Initial bias of every input gate; a negative one makes new blocks remember longer.
        transition_bias: Initial bias of all other gates; a positive one makes blocks with the "relu" normalisation
            remember, half of whose gates otherwise start at exactly 0.
        backend: As in `statemix.ops.bdlru_scan`.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A size is below 1, or a name is unknown.

    Example:
        >>> layer = BDLRU(16, block_size=4)
        >>> y, state = layer(torch.randn(2, 10, 16))
        >>> y_next, state = layer.step(torch.randn(2, 16), state)
        >>> y.shape, y_next.shape, state.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 16]), torch.Size([2, 4, 4]))

    Source: arXiv 2602.12021, BD-LRU.
    """

    scan = staticmethod(bdlru_scan)
    recurrence = "bdlru"
    shown = ("dim", "block_size", "num_blocks", "normalization", "selective", "hard", "learned_initial_state")

    def __init__(
        self,
        dim: int,
        *,
        block_size: int,
        num_blocks: int | None = None,
        normalization: str = "softmax",
        selective: bool = True,
        hard: bool = False,
        learned_initial_state: bool = False,
        gate_bias: float = 0.0,
        transition_bias: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        dim, m, blocks = check_sizes(dim, block_size=block_size, num_blocks=num_blocks)
        super().__init__(
            dim, blocks=blocks, m=m, readout_width=blocks * m, normalization=normalization, selective=selective,
            hard=hard, learned_initial_state=learned_initial_state, gate_bias=gate_bias,
            transition_bias=transition_bias, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.block_size, self.num_blocks = m, blocks

    def _read_out(self, states: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
        return read_out(self.readout_projection, states)

    def _read_out_step(self, states: Tensor, state: Tensor) -> Tensor:
        return self.readout_projection(states.flatten(1))

    def transitions(self, x: Tensor) -> Tensor:
        """The normalised transition matrices A_t for x [B, T, dim]: [B, T, N, m, m] (for analysis)."""
        return self._weights(x)[..., :-1]
