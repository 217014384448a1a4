"""DeltaNet, gated DeltaNet and gated DeltaProduct: one layer, three sizes of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.mixer import check_size
from statemix_research.baselines.base import Parts, Rival
from statemix_research.baselines.operations import check_backend, operate
from statemix_research.baselines.parts import Decay, GatedNorm, ShortConvolution


class DeltaLayer(Rival):
    """The delta rule, `factors` times a token, with a scalar forget gate per head when `gated`.

    Short convolutions with SiLU on q, k, v; q and k of length 1; β = σ(·), twice that when `negative_eigenvalues`.
    K = head_dim, V = head_dim · expand_v. State: H K V, and the convolutions' windows.
    """

    operation: ClassVar[str]
    gated: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        head_dim: int,
        expand_v: int,
        factors: int,
        negative_eigenvalues: bool,
        conv_size: int,
        backend: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        for name, size in (("dim", dim), ("heads", heads), ("head_dim", head_dim), ("expand_v", expand_v)):
            check_size(name, size)
        check_size("factors", factors)
        keys, values = heads * head_dim, heads * head_dim * expand_v
        mixed = keys + factors * (keys + values)
        window = (check_size("conv_size", conv_size) - 1, mixed)
        super().__init__(dim, {"S": (heads, head_dim, head_dim * expand_v), "window": window})
        self.heads, self.head_dim, self.value_dim = heads, head_dim, head_dim * expand_v
        self.factors, self.conv_size = factors, conv_size
        self.negative_eigenvalues, self.backend = bool(negative_eigenvalues), check_backend(backend)
        self.mixed = nn.Linear(
            dim, mixed, bias=False, device=device, dtype=dtype
        )  # q, then k and v of each factor
        self.convolution = ShortConvolution(mixed, conv_size, device=device, dtype=dtype)
        self.beta = nn.Linear(dim, factors * heads, bias=False, device=device, dtype=dtype)
        self.norm: nn.Module
        if self.gated:
            self.forget = nn.Linear(dim, heads, bias=False, device=device, dtype=dtype)
            self.decay = Decay(heads, rates=(0.0, 16.0), device=device, dtype=dtype)
            self.gate = nn.Linear(dim, values, bias=False, device=device, dtype=dtype)
            self.norm = GatedNorm(self.value_dim, after=True, device=device, dtype=dtype)
        else:
            self.norm = nn.RMSNorm(self.value_dim, eps=1e-5, device=device, dtype=dtype)
        self.out = nn.Linear(values, dim, bias=False, device=device, dtype=dtype)

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] -> (y [B, T, dim], the state after it)."""
        keys, n = self.heads * self.head_dim, self.factors
        mixed, window = self.convolution(self.mixed(x), state["window"])
        q, k, v = mixed.split([keys, n * keys, n * self.heads * self.value_dim], -1)
        beta = self.beta(x).sigmoid() * (2.0 if self.negative_eigenvalues else 1.0)
        tensors = {
            "q": F.normalize(self._heads(q, 1, self.head_dim), dim=-1) * self.head_dim**-0.5,
            "k": F.normalize(self._heads(k, n, self.head_dim), dim=-1),
            "v": self._heads(v, n, self.value_dim),
            "beta": self._heads(beta, n, 1).squeeze(-1),
        }
        if self.gated:
            tensors["g"] = self.decay(self.forget(x))[0]
        settings = {"num_householder": n} if n > 1 else {}
        y, after = operate(self.operation, self.backend, state["S"], tensors, **settings)
        y = self._normalized(y, x)
        return self.out(y.flatten(-2)), {"S": after, "window": window}

    def _heads(self, x: Tensor, factors: int, size: int) -> Tensor:
        """[B, T, n H d] -> [B, T n, H, d]."""
        return x.unflatten(-1, (factors, self.heads, size)).flatten(1, 2)

    def _normalized(self, y: Tensor, x: Tensor) -> Tensor:
        if not self.gated:
            return self.norm(y.to(self.norm.weight.dtype))  # type: ignore[arg-type]
        return self.norm(y, self.gate(x).unflatten(-1, (self.heads, self.value_dim)))


class DeltaNet(DeltaLayer):
    """S_t = S_{t-1} + β k (v - S_{t-1}ᵀ k)ᵀ: one Householder factor a token, no forget gate, no output gate.

    Default: 4 heads of 64 keys and 64 values. Source: arXiv 2406.06484; negative eigenvalues: arXiv 2411.12537.
    """

    operation, gated = "delta_rule", False

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
        super().__init__(
            dim, heads=heads, head_dim=head_dim, expand_v=expand_v, factors=1,
            negative_eigenvalues=negative_eigenvalues, conv_size=conv_size, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip


class GatedDeltaNet(DeltaNet):
    """DeltaNet whose state first shrinks by a scalar per head, with a gated norm before the read-out.

    Source: arXiv 2412.06464.
    """

    operation, gated = "gated_delta_rule", True


class GatedDeltaProduct(DeltaLayer):
    """Gated DeltaNet with `factors` Householder factors a token (2 or 4 in the literature).

    Default: 2 factors, 4 heads of 64 keys and 64 values. Source: arXiv 2502.10297.
    """

    operation = "gated_delta_product"

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
        super().__init__(
            dim, heads=heads, head_dim=head_dim, expand_v=expand_v, factors=check_size("factors", factors, 2),
            negative_eigenvalues=negative_eigenvalues, conv_size=conv_size, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
