"""torch's LSTM as a mixer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Parts, Rival


class LSTM(Rival):
    """torch.nn.LSTM (cuDNN on a GPU), one layer, and a linear read-out without bias.

    `hidden_size`: H, default `dim`. State: h and c, 2 H numbers. Parameters: 4 H (dim + H + 2) + H dim.
    Source: Hochreiter and Schmidhuber 1997; as arXiv 2602.12021 uses it.
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

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        kind = self.dtype
        h, c = (state[name].to(kind).unsqueeze(0).contiguous() for name in ("h", "c"))
        half = x.is_cuda and torch.is_autocast_enabled(x.device.type)  # oneDNN's has no bfloat16 everywhere
        with torch.autocast(x.device.type, enabled=half):
            y, (h, c) = self.lstm(x.to(kind), (h, c))
        return self.out(y), {"h": h[0], "c": c[0]}
