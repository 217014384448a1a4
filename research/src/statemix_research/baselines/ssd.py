"""Mamba-2's scan by the Triton kernels of mamba_ssm, without the package's compiled extension.

Of the package only `ops.triton` is imported. It installs without a CUDA compiler, and without what its models need:

MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install --no-deps --no-build-isolation mamba-ssm einops
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from statemix_research.baselines import recurrences

PACKAGE = "mamba_ssm"

INSTALLED = (
    find_spec(PACKAGE) is not None and find_spec("einops") is not None and find_spec("triton") is not None
)
"""Read once, at import."""

MISSING = (
    "mamba_ssm with einops and triton is not installed: MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE "
    "pip install --no-deps --no-build-isolation mamba-ssm einops"
)

KERNEL = "mamba_ssm kernel"
"""What the scan runs as."""

CHUNK = 256
"""Steps of a chunk, as in mamba_ssm."""


def unusable(device: torch.device) -> str | None:
    """Why the kernels cannot be used on a device, or None."""
    if not INSTALLED:
        return MISSING
    return None if device.type == "cuda" else f"mamba_ssm has no kernels for {device.type}"


def runs(backend: str, state: Tensor, steps: int) -> bool:
    """Whether the kernels take a scan of so many steps: for "kernel", and for "auto" beyond one token; no float64."""
    wanted = backend == "kernel" or (backend == "auto" and steps > 1)
    return wanted and state.dtype == torch.float32 and unusable(state.device) is None


def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = exp(a Δ_t) S_{t-1} + Δ_t b_t x_tᵀ, y_t = S_tᵀ c_t per head; b and c are shared by the heads.

    x [B, T, H, P], dt (Δ) [B, T, H], a [H] (negative), b, c [B, T, N], state [B, H, N, P] -> (y [B, T, H, P], the state
    after it). x, b and c are taken in the dtype of autocast, else in that of x; the others in float32.
    Source: arXiv 2405.21060.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    x, b, c = (one.to(dtype).contiguous() for one in (x, b.unsqueeze(2), c.unsqueeze(2)))
    initial = state.float().transpose(-1, -2).contiguous()
    y, after = _run_kernel(
        x, dt.float().contiguous(), a.float(), b, c, CHUNK, initial_states=initial, return_final_states=True
    )
    return y, after.transpose(-1, -2)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _run_kernel(*arguments: Any, **settings: Any) -> Any:
    return kernel()(*arguments, **settings)


def reference(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`scan` as a plain loop."""
    q, k = (one.unsqueeze(2).expand(-1, -1, x.shape[2], -1) for one in (c, b))
    return recurrences.simple_gla(q=q, k=k, v=x * dt.unsqueeze(-1), g=a * dt, initial_state=state)


@functools.cache
def kernel() -> Callable[..., Any]:
    """`mamba_chunk_scan_combined`. The package's own imports, which need the extension, are left out."""
    if PACKAGE not in sys.modules and (spec := find_spec(PACKAGE)) is not None:
        package = types.ModuleType(PACKAGE)
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[PACKAGE] = package
    found: Callable[..., Any] = import_module(f"{PACKAGE}.ops.triton.ssd_combined").mamba_chunk_scan_combined
    return found
