"""The block-diagonal layer."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer
from statemix.nn.projection import check_size, default_blocks, read_out
from statemix.ops import bdlru_scan, normalize


class BDLRU(RecurrentLayer):
    """Block-diagonal linear recurrent unit: N blocks of m channels, each with its own dense m×m transition.

    x [B, T, dim] -> y [B, T, dim]; state [S, N, m]. `block_size` is m, `num_blocks` is N (default: dim / m,
    rounded, from 64 on to a multiple of 8, so that the state has about `dim` numbers). `normalization`: a key of
    `statemix.ops.NORMALIZATIONS`. `selective`: gates are a projection of the input, or free parameters, the same at
    every step. `gate_bias`: what every input gate starts with (negative values make new blocks remember longer).
    `transition_bias`: what all other gates start with (positive values make blocks with the "relu" normalisation
    remember: without it half of these gates start at exactly 0). `backend`: as `bdlru_scan`.
    Parameters (selective): N·m·[(dim + 1)(m + 1) + 2·dim].
    Errors: ValueError or TypeError naming the argument. Source: arXiv 2602.12021, BD-LRU.
    """

    scan = staticmethod(bdlru_scan)
    recurrence = "bdlru"

    def __init__(
        self,
        dim: int,
        *,
        block_size: int,
        num_blocks: int | None = None,
        normalization: str = "softmax",
        selective: bool = True,
        gate_bias: float = 0.0,
        transition_bias: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        dim = check_size("dim", dim)
        m = check_size("block_size", block_size)
        blocks = default_blocks(dim, m) if num_blocks is None else check_size("num_blocks", num_blocks)
        super().__init__(
            dim, blocks=blocks, m=m, gate_shape=(m, m + 1), value_shape=(m,), readout_width=blocks * m,
            normalization=normalization, selective=selective, gate_bias=gate_bias, transition_bias=transition_bias,
            backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.block_size, self.num_blocks = m, blocks

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, N, m] or None (zeros), cu_seqlens [S+1] or None -> (y [B, T, dim], new state).

        The state is float32 (float64 for float64 inputs) and carries gradients.
        """
        states, state = self._forward(x, state, cu_seqlens)
        return read_out(self.readout_projection, states), state

    def _step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        states, state = self._scan_step(x, state)
        return self.readout_projection(states.flatten(1)), state

    def transitions(self, x: Tensor) -> Tensor:
        """The normalised transition matrices A_t for x [B, T, dim]: [B, T, N, m, m] (for analysis)."""
        self._check_forward(x)
        return normalize(self.raw_gates(x), self.normalization)[..., :-1]

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return (
            f"dim={self.dim}, block_size={self.block_size}, num_blocks={self.num_blocks}, "
            f"normalization={self.normalization!r}, selective={self.selective}"
        )
