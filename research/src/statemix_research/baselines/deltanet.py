"""DeltaNet, gated DeltaNet and gated DeltaProduct."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Baseline, State
from statemix_research.baselines.kernels import check_backend, run_operation
from statemix_research.baselines.modules import Decay, GatedNorm, ShortConvolution


class DeltaNet(Baseline):
    """S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}ᵀ k_t)ᵀ, y_t = S_tᵀ q_t per head: no forget gate, no output gate.

    Short convolutions with SiLU on q, k, v; q and k of length 1; β = σ(·), twice that when `negative_eigenvalues`.
    x [B, T, dim] -> y [B, T, dim]; state: S [B, H, K, V] with K = head_dim, V = K · expand_v, and the windows of the
    convolutions. Source: arXiv 2406.06484; negative eigenvalues: arXiv 2411.12537.

    Args:
        dim: width of input and output.
        heads: H, number of heads.
        head_dim: K, numbers of a key.
        expand_v: numbers of a value, as a multiple of K.
        negative_eigenvalues: β in (0, 2) instead of (0, 1).
        conv_size: steps of the short convolutions.
        backend: "auto", "loop", "chunks" or "kernel" (`kernels.run_operation`).
    """

    operation: ClassVar[str] = "delta_rule"
    gated: ClassVar[bool] = False
    """Whether there are a scalar forget gate per head and a gated norm."""
    factors = 1
    """Writes a token."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int = 64,
        expand_v: int = 1,
        negative_eigenvalues: bool = True,
        conv_size: int = 4,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, size in {"dim": dim, "heads": heads, "head_dim": head_dim, "expand_v": expand_v}.items():
            check_size(name, size)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        factors = self.factors
        keys, values = heads * head_dim, heads * head_dim * expand_v
        mixed = keys + factors * (keys + values)  # q, then k and v of each factor
        window = (check_size("conv_size", conv_size) - 1, mixed)
        super().__init__(dim, {"S": (heads, head_dim, head_dim * expand_v), "window": window})
        self.heads, self.head_dim, self.value_dim = heads, head_dim, head_dim * expand_v
        self.factors, self.conv_size = factors, conv_size
        self.negative_eigenvalues, self.backend = bool(negative_eigenvalues), check_backend(backend)
        self.mixed = nn.Linear(dim, mixed, bias=False, **factory)
        self.convolution = ShortConvolution(mixed, conv_size, **factory)
        self.beta = nn.Linear(dim, factors * heads, bias=False, **factory)
        self.norm: nn.Module
        if self.gated:
            self.forget = nn.Linear(dim, heads, bias=False, **factory)
            self.decay = Decay(heads, rates=(0.0, 16.0), **factory)
            self.gate = nn.Linear(dim, values, bias=False, **factory)
            self.norm = GatedNorm(self.value_dim, gate_last=True, **factory)
        else:
            self.norm = nn.RMSNorm(self.value_dim, eps=1e-5, **factory)
        self.out = nn.Linear(values, dim, bias=False, **factory)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        keys, n = self.heads * self.head_dim, self.factors
        mixed, window = self.convolution(self.mixed(x), state["window"])
        q, k, v = mixed.split([keys, n * keys, n * self.heads * self.value_dim], -1)
        beta = self.beta(x).sigmoid() * (2.0 if self.negative_eigenvalues else 1.0)
        tensors = {
            "q": F.normalize(self._split(q, 1, self.head_dim), dim=-1) * self.head_dim**-0.5,
            "k": F.normalize(self._split(k, n, self.head_dim), dim=-1),
            "v": self._split(v, n, self.value_dim),
            "beta": self._split(beta, n, 1).squeeze(-1),
        }
        if self.gated:
            tensors["g"] = self.decay(self.forget(x))[0]
        settings = {"num_householder": n} if n > 1 else {}
        y, after = run_operation(self.operation, self.backend, state["S"], tensors, **settings)
        return self.out(self._normalize(y, x).flatten(-2)), {"S": after, "window": window}

    def _split(self, x: Tensor, factors: int, size: int) -> Tensor:
        """[B, T, n H d] -> [B, T n, H, d]."""
        return x.unflatten(-1, (factors, self.heads, size)).flatten(1, 2)

    def _normalize(self, y: Tensor, x: Tensor) -> Tensor:
        if not self.gated:
            return self.norm(y.to(self.norm.weight.dtype))  # type: ignore[arg-type]
        return self.norm(y, self.gate(x).unflatten(-1, (self.heads, self.value_dim)))


class GatedDeltaNet(DeltaNet):
    """S_t = α_t S_{t-1} + β_t k_t (v_t - α_t S_{t-1}ᵀ k_t)ᵀ: DeltaNet with a scalar decay α per head and a gated norm.

    Arguments, shapes and state as `DeltaNet`. Source: arXiv 2412.06464.
    """

    operation, gated = "gated_delta_rule", True


class GatedDeltaProduct(DeltaNet):
    """Gated DeltaNet with `factors` delta-rule writes a token (2 or 4 in the literature); one decay before them.

    Other arguments, shapes and state as `DeltaNet`. Source: arXiv 2502.10297.

    Args:
        factors: writes a token, at least 2.
    """

    operation, gated = "gated_delta_product", True

    def __init__(
        self,
        dim: int,
        *,
        factors: int = 2,
        heads: int = 4,
        head_dim: int = 64,
        expand_v: int = 1,
        negative_eigenvalues: bool = True,
        conv_size: int = 4,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.factors = check_size(
            "factors", factors, 2
        )  # before torch's own constructor: the sizes follow from it
        super().__init__(
            dim, heads=heads, head_dim=head_dim, expand_v=expand_v, negative_eigenvalues=negative_eigenvalues,
            conv_size=conv_size, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
