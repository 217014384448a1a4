"""torch's LSTM as a mixer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Baseline, State


class LSTM(Baseline):
    """c_t = σ(f) c_{t-1} + σ(i) tanh(g), h_t = σ(o) tanh(c_t), y_t = W h_t, with i, f, g, o linear in (x_t, h_{t-1}).

    torch.nn.LSTM (cuDNN on a GPU) with one layer, and a linear read-out without bias.
    x [B, T, dim] -> y [B, T, dim]; state [B, 2 H]: h and c. Parameters: 4 H (dim + H + 2) + H dim.
    Source: Hochreiter and Schmidhuber 1997, as used in arXiv 2602.12021.

    Args:
        dim: width of input and output.
        hidden_size: H; default `dim`.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("dim", dim)
        hidden = dim if hidden_size is None else check_size("hidden_size", hidden_size)
        super().__init__(dim, {"h": (hidden,), "c": (hidden,)})
        self.hidden_size = hidden
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, device=device, dtype=dtype)
        self.out = nn.Linear(hidden, dim, bias=False, device=device, dtype=dtype)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        h, c = (state[name].to(self.dtype).unsqueeze(0).contiguous() for name in ("h", "c"))
        half = x.is_cuda and torch.is_autocast_enabled(x.device.type)  # oneDNN lacks bfloat16 on some CPUs
        with torch.autocast(x.device.type, enabled=half):
            y, (h, c) = self.lstm(x.to(self.dtype), (h, c))
        return self.out(y), {"h": h[0], "c": c[0]}
