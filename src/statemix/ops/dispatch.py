"""Backends by name, the choice among them, and the call of the one chosen."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from statemix.ops import cpu, reference, triton
from statemix.ops._torch_compat import is_view
from statemix.ops.layout import Role, in_fast_format
from statemix.ops.normalization import CODES, HARD, NORMALIZATIONS

RECURRENCES = ("bdlru", "hlru", "affine")

BACKENDS: dict[str, ModuleType] = {"reference": reference, "cpu": cpu, "triton": triton}
"""Backends by name: modules with `unavailable(device, dtype)`, the reason why not, `forward` and `backward`.

One may also have `can_fuse(width, dtype)`, and `forward_fused` and `backward_fused` for gates and values side by side.
"""

COMPILED = {
    "cpu": ("cpu", "compiled kernels (Numba) are installed"),
    "cuda": ("triton", "Triton is installed and compiles kernels for this device"),
}
"""What "auto" picks by type of device where it can run, and the reason to show."""

STEPS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"cpu": cpu.step}
"""Shorter ways for one token, by backend."""


def explain_backend(
    device: torch.device | str = "cpu", dtype: torch.dtype | None = None, normalization: str = "softmax"
) -> tuple[str, str]:
    """Which backend `backend="auto"` picks, and why.

    Args:
        device: Where the tensors are.
        dtype: That of gates and values; None stands for any that the device's kernels take.
        normalization: A key of `statemix.ops.NORMALIZATIONS`.

    Returns:
        The name of the backend and the reason, one line. The loop ("reference") runs wherever nothing faster can.

    Example:
        >>> explain_backend("cpu", torch.float32)
        ('cpu', 'compiled kernels (Numba) are installed')
    """
    device = torch.device(device)
    if device.type not in COMPILED:
        return "reference", f"no compiled kernels for {device.type} tensors in this version"
    name, why = COMPILED[device.type]
    reason = unavailable(name, device, dtype, normalization)
    return (name, why) if reason is None else ("reference", reason)


def check_backend(backend: str) -> str:
    """`backend` if it is "auto" or one of `BACKENDS`; ValueError listing them otherwise."""
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(map(repr, ("auto", *BACKENDS)))
        raise ValueError(f"backend: got {backend!r}, expected one of {known}")
    return backend


def choose_backend(
    backend: str, device: torch.device, dtype: torch.dtype | None = None, normalization: str = "softmax"
) -> str:
    """The backend to run: "auto" resolved, an explicit one checked. ValueError if unknown or unable to run."""
    if check_backend(backend) == "auto":
        return explain_backend(device, dtype, normalization)[0]
    reason = unavailable(backend, device, dtype, normalization)
    if reason is not None:
        raise ValueError(f"backend: {backend!r} cannot run: {reason}")
    return backend


def unavailable(
    backend: str, device: torch.device, dtype: torch.dtype | None, normalization: str
) -> str | None:
    """Why a backend cannot run a normalisation on tensors of a device and a dtype (None: any it takes), or None."""
    if normalization not in CODES and backend != "reference":
        known = ", ".join(map(repr, (name for name in NORMALIZATIONS if name in CODES)))
        name = normalization.removeprefix(HARD)
        return f"the compiled kernels know no normalization {name!r}, expected one of {known}"
    return BACKENDS[backend].unavailable(device, dtype)  # type: ignore[no-any-return]


def can_fuse(backend: str, width: int, dtype: torch.dtype) -> bool:
    """Whether a backend takes gates and values of one product, with `width` values a step, and their gradients."""
    capability = getattr(BACKENDS[backend], "can_fuse", None)
    return capability is not None and capability(width, dtype)


def forward(recurrence: str, *arguments: Any) -> Any:
    """States and final state by a backend, the last argument; arguments already checked."""
    results = BACKENDS[arguments[-1]].forward(recurrence, *arguments[:-1])
    return _owned(results[0], "values"), _owned(results[1], "state")


def backward(recurrence: str, *arguments: Any) -> Any:
    """Gradients of gates, values and initial state by a backend, the last argument."""
    d_gates, d_values, d_state = BACKENDS[arguments[-1]].backward(recurrence, *arguments[:-1])
    return _owned(d_gates, "gates"), _owned(d_values, "values"), _owned(d_state, "state")


def fused_forward(recurrence: str, gates_values: Tensor, *arguments: Any) -> Any:
    """`forward` for gates and values side by side, the sizes of a step's values after them."""
    results = BACKENDS[arguments[-1]].forward_fused(recurrence, gates_values, *arguments[:-1])
    return _owned(results[0], "values"), _owned(results[1], "state")


def fused_backward(recurrence: str, *arguments: Any) -> Any:
    """Gradients of gates and values side by side, of the gates summed over B and T (float32), and of the state."""
    d_both, d_bias, d_state = BACKENDS[arguments[-1]].backward_fused(recurrence, *arguments[:-1])
    return d_both, d_bias, in_fast_format(d_state, "state")


def _owned(tensor: Tensor, role: Role) -> Tensor:
    """The tensor in the fast format, and no view: what it is a view of would forbid changing it in place."""
    fast = in_fast_format(tensor, role)
    return fast.clone() if is_view(fast) else fast
