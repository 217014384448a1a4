"""The higher-order layer."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer
from statemix.nn.projection import check_size, default_blocks
from statemix.nn.window import window_readout
from statemix.ops import hlru_scan, normalize

READOUTS = ("window", "newest")


class HLRU(RecurrentLayer):
    """Higher-order linear recurrent unit: N channels, each looking back over its own last m states.

    x [B, T, dim] -> y [B, T, dim]; state [S, N, m], newest first. `order` is m, `num_channels` is N (default:
    dim / m, rounded, from 64 on to a multiple of 8, so that the state has about `dim` numbers).
    `readout`: "window" projects the last m states
    of every channel (the paper's layer; computed as an m-tap causal read-out), "newest" only h_t. The other
    arguments are those of `BDLRU`. Parameters (selective, window): N·(m + 1)·(2·dim + 1).
    Errors: ValueError or TypeError naming the argument. Source: arXiv 2602.12021, H-LRU.
    """

    scan = staticmethod(hlru_scan)
    recurrence = "hlru"

    def __init__(
        self,
        dim: int,
        *,
        order: int,
        num_channels: int | None = None,
        readout: str = "window",
        normalization: str = "softmax",
        selective: bool = True,
        gate_bias: float = 0.0,
        transition_bias: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        dim = check_size("dim", dim)
        m = check_size("order", order)
        channels = (
            default_blocks(dim, m) if num_channels is None else check_size("num_channels", num_channels)
        )
        if readout not in READOUTS:
            raise ValueError(f"readout: got {readout!r}, expected one of {', '.join(map(repr, READOUTS))}")
        taps = m if readout == "window" else 1
        super().__init__(
            dim, blocks=channels, m=m, gate_shape=(m + 1,), value_shape=(), readout_width=channels * taps,
            normalization=normalization, selective=selective, gate_bias=gate_bias, transition_bias=transition_bias,
            backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.order, self.num_channels, self.readout = m, channels, readout
        self._taps = taps  # how many states of a channel are read out

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, N, m] or None (zeros), cu_seqlens [S+1] or None -> (y [B, T, dim], new state).

        The state is float32 (float64 for float64 inputs), newest first, and carries gradients.
        """
        states, final_state = self._forward(x, state, cu_seqlens)
        y = window_readout(self.readout_projection, states, self._taps, state, cu_seqlens)
        return y, final_state

    def _step(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        states, state = self._scan_step(x, state)
        if self._taps > 1:  # [B, taps, N], cast and reordered at once
            window, dtype = state.transpose(1, 2), states.dtype
            if window.dtype != dtype:
                window = window.to(dtype, memory_format=torch.contiguous_format)
            states = window
        return self.readout_projection(states.flatten(1)), state

    def coefficients(self, x: Tensor) -> Tensor:
        """The normalised gates for x [B, T, dim]: [B, T, N, m+1], lags 1 … m and the input gate (for analysis)."""
        self._check_forward(x)
        return normalize(self.raw_gates(x), self.normalization)

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return (
            f"dim={self.dim}, order={self.order}, num_channels={self.num_channels}, readout={self.readout!r}, "
            f"normalization={self.normalization!r}, selective={self.selective}"
        )
