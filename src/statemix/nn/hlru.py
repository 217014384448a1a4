"""The higher-order layer."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.nn.layer import RecurrentLayer, check_sizes
from statemix.nn.linear import read_out_window
from statemix.ops import hlru_scan

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
        hard: Whether every channel repeats one of its last m states or takes its value.
        learned_initial_state: Whether sequences start from a parameter `initial` [N, m], newest first.
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
    shown = (
        "dim",
        "order",
        "num_channels",
        "readout",
        "normalization",
        "selective",
        "hard",
        "learned_initial_state",
    )

    def __init__(
        self,
        dim: int,
        *,
        order: int,
        num_channels: int | None = None,
        readout: str = "window",
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
        dim, m, channels = check_sizes(dim, order=order, num_channels=num_channels)
        if readout not in READOUTS:
            raise ValueError(f"readout: got {readout!r}, expected one of {', '.join(map(repr, READOUTS))}")
        taps = m if readout == "window" else 1
        super().__init__(
            dim, blocks=channels, m=m, readout_width=channels * taps, normalization=normalization, selective=selective,
            hard=hard, learned_initial_state=learned_initial_state, gate_bias=gate_bias,
            transition_bias=transition_bias, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.order, self.num_channels, self.readout = m, channels, readout
        self._taps = taps  # how many states of a channel are read out

    def _read_out(self, states: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
        return read_out_window(self.readout_projection, states, self._taps, state, cu_seqlens)

    def _read_out_step(self, states: Tensor, state: Tensor) -> Tensor:
        if self._taps > 1:  # [B, taps, N], cast and reordered at once
            window, dtype = state.transpose(1, 2), states.dtype
            states = (
                window.to(dtype, memory_format=torch.contiguous_format) if window.dtype != dtype else window
            )
        return self.readout_projection(states.flatten(1))

    def coefficients(self, x: Tensor) -> Tensor:
        """The normalised gates for x [B, T, dim]: [B, T, N, m+1], lags 1 … m and the input gate (for analysis)."""
        return self._weights(x)
