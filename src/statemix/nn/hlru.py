"""The higher-order layer."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer, default_blocks
from statemix.nn.linear import read_out_window
from statemix.nn.mixer import check_size
from statemix.ops import hlru_scan, normalize

READOUTS = ("window", "newest")


class HLRU(RecurrentLayer):
    r"""Higher-order linear recurrent unit: N channels, each looking back over its own last m states.

    $h_t = \sum_{i=1}^{m} a_{i,t} h_{t-i} + a_{0,t} v_t$, $y_t = \sum_{j=0}^{m-1} W_j h_{t-j}$, where gates and
    values are linear in $x_t$ and the gates are normalised. `forward` maps x [B, T, dim] to y [B, T, dim] and carries a
    state [S, N, m], newest first; `step` takes one token. Parameters (selective, window): N·(m + 1)·(2·dim + 1).

    Args:
        dim: Width of input and output.
        order: m, how many states a channel looks back.
        num_channels: N; by default dim / m, rounded (from 64 on to a multiple of 8): a state of about `dim` numbers.
        readout: "window" projects the last m states of every channel (the paper's layer; computed as an m-tap causal
            read-out), "newest" only h_t.
        normalization: As in `BDLRU`, and so are the arguments that follow.
        selective: Whether gates are a projection of the input.
        gate_bias: Initial bias of every input gate.
        transition_bias: Initial bias of all other gates.
        backend: As in `statemix.ops.bdlru_scan`.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A size is below 1, or a name is unknown.

    Example:
        >>> layer = HLRU(16, order=4)
        >>> y, state = layer(torch.randn(2, 10, 16))
        >>> y.shape, state.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 4, 4]))

    Source: arXiv 2602.12021, H-LRU.
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
            dim, blocks=channels, m=m, readout_width=channels * taps, normalization=normalization, selective=selective,
            gate_bias=gate_bias, transition_bias=transition_bias, backend=backend, device=device, dtype=dtype,
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
        y = read_out_window(self.readout_projection, states, self._taps, state, cu_seqlens)
        return y, final_state

    def _read_out_step(self, states: Tensor, state: Tensor) -> Tensor:
        if self._taps > 1:  # [B, taps, N], cast and reordered at once
            window, dtype = state.transpose(1, 2), states.dtype
            states = (
                window.to(dtype, memory_format=torch.contiguous_format) if window.dtype != dtype else window
            )
        return self.readout_projection(states.flatten(1))

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
