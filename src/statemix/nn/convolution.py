"""The short causal convolution that many language models put before a mixer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_cu_seqlens, check_input, check_size, placement, state_dtype
from statemix.ops._torch_compat import is_hooked
from statemix.ops.checks import check_state
from statemix.ops.lagged import lagged, newest


class ShortConvolution(nn.Module):
    r"""Depthwise causal convolution over the last few tokens, then SiLU.

    $y_t = \mathrm{silu}\big(\sum_{j=0}^{k-1} w_j \odot x_{t-j}\big)$ with k = `conv_size`: one weight a channel and
    lag, no bias, so that zeros stay zeros. It is a mixer (see `statemix.nn.mixer`): `forward` maps x [B, T, dim] to
    y [B, T, dim] and carries the last k - 1 inputs, a state [S, dim, k - 1] with the newest first. `weight` is
    [dim, k], column j for lag j, and starts uniform in ±1/√k. Sums are taken in float32 (float64 for float64 inputs).

    Args:
        dim: Channels.
        conv_size: k, at least 2.
        device: Of the weight.
        dtype: Of the weight.

    Raises:
        TypeError: A size is no whole number.
        ValueError: `dim` is below 1 or `conv_size` below 2.

    Example:
        >>> convolution = ShortConvolution(4, 3)
        >>> y, state = convolution(torch.randn(2, 5, 4))
        >>> y_next, state = convolution.step(torch.randn(2, 4), state)
        >>> y.shape, y_next.shape, state.shape
        (torch.Size([2, 5, 4]), torch.Size([2, 4]), torch.Size([2, 4, 2]))

    Source: arXiv 2312.00752, the convolution of Mamba's block.
    """

    def __init__(
        self,
        dim: int,
        conv_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.conv_size = check_size("dim", dim), check_size("conv_size", conv_size, 2)
        self.weight = nn.Parameter(torch.empty(self.dim, self.conv_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight as `torch.nn.Conv1d` draws its own: uniform in ±1/√k."""
        bound = self.conv_size**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros [S, dim, k - 1] for S = batch_size sequences, float32 (float64 in a float64 layer)."""
        size = check_size("batch_size", batch_size, 0)
        device, dtype = placement(self)
        return torch.zeros(size, self.dim, self.conv_size - 1, dtype=state_dtype(dtype), device=device)

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, dim, k - 1] or None (zeros), cu_seqlens [S+1] or None -> (y [B, T, dim], state)."""
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]")
        state = self._carried(x, state, cu_seqlens)
        y = self._weighted(self._lags(x, state, cu_seqlens))
        return y, newest(x, state, cu_seqlens)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state or None (zeros) -> (y [B, dim], state). Equal to `forward` on T = 1."""
        check_input("x", x, ("B", self.dim), "[B, dim]")
        if is_hooked(self):
            y, state = self(x.unsqueeze(1), state)
            return y[:, 0], state
        state = self._carried(x.unsqueeze(1), state, None)
        y = self._weighted([x, *state.to(x.dtype).unbind(-1)])
        return y, torch.cat([x.unsqueeze(-1).to(state.dtype), state[..., :-1]], -1)

    def extra_repr(self) -> str:
        """The arguments, as they were given."""
        return f"dim={self.dim}, conv_size={self.conv_size}"

    def _lags(self, x: Tensor, state: Tensor, cu_seqlens: Tensor | None) -> list[Tensor]:
        """x_{t-j} for every t, j from 0 to k - 1; of an unpacked x views of one tensor, which is all that is kept for
        the gradients."""
        if cu_seqlens is not None:
            return [x, *(lagged(x, lag, state, cu_seqlens) for lag in range(1, self.conv_size))]
        history = torch.cat([state.flip(-1).transpose(1, 2).to(x.dtype), x], dim=1)  # [B, k - 1 + T, dim]
        return [history.narrow(1, self.conv_size - 1 - lag, x.shape[1]) for lag in range(self.conv_size)]

    def _weighted(self, inputs: list[Tensor]) -> Tensor:
        """silu of the weighted sum of the inputs of all lags, newest first, added in this order."""
        first, *others = self.weight.to(state_dtype(inputs[0].dtype)).unbind(-1)
        total = inputs[0] * first
        for weight, x in zip(others, inputs[1:], strict=True):
            total = total + x * weight
        return F.silu(total).to(inputs[0].dtype)

    def _carried(self, x: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> Tensor:
        sequences, dtype = x.shape[0], state_dtype(x.dtype)
        if cu_seqlens is not None:
            check_cu_seqlens(cu_seqlens, sequences, x.shape[1])
            sequences = cu_seqlens.shape[0] - 1
        shape = (sequences, self.dim, self.conv_size - 1)
        if state is None:
            return x.new_zeros(shape, dtype=dtype)
        check_state("state", state, shape, x, "[S, dim, conv_size - 1]")
        return state.to(dtype)
