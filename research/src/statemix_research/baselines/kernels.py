"""The recurrences that have kernels in flash-linear-attention: plain loop, chunks, kernel, and which of them runs.

The loop is the definition and runs on every device in any float dtype. All take the same tensors by the same names and
carry a state [B, H, K, V]; queries are not scaled.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.extras import missing
from statemix_research.baselines import chunked, recurrences
from statemix_research.baselines.base import check_choice

MISSING = missing("fla")


def installed_triton() -> tuple[int, ...]:
    """The version of the installed Triton, such as (3, 6, 0), or () where there is none. Triton is not imported."""
    for package in ("triton", "pytorch-triton"):
        try:
            numbers = re.match(r"\d+(\.\d+)*", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            continue
        return tuple(map(int, numbers[0].split("."))) if numbers else ()
    return ()


INSTALLED = find_spec("fla") is not None
TILELANG = find_spec("tilelang") is not None
TRITON = installed_triton()
"""Whether flash-linear-attention and tilelang are installed, and Triton's version. Read once, at import: torch.compile
traces through the choice."""


def refused_on_hopper(on_hopper: str, device: torch.device) -> str | None:
    """Why flash-linear-attention computes no gradients of an operation on a CUDA device, or None.

    Triton from 3.4 on and before 3.7.1 compiles its `chunk_bwd_dqkwg` wrongly for compute capability 9 (issue 640 of
    flash-linear-attention), so the package raises a RuntimeError in the backward pass, unless tilelang replaces the
    kernel, as it does where states are not float32.
    """
    tilelang = on_hopper == "tilelang"
    if on_hopper == "kernel" or (tilelang and TILELANG):
        return None
    if not (3, 4) <= TRITON < (3, 7, 1) or torch.version.hip is not None:
        return None
    if torch.cuda.get_device_properties(device).major != 9:
        return None
    version, or_else = ".".join(map(str, TRITON)), ", or tilelang," if tilelang else ""
    return (
        f"flash-linear-attention refuses its backward pass on Hopper GPUs with Triton {version}, which compiles it"
        f" wrongly: Triton 3.7.1 or newer{or_else} is needed"
    )


class Operation(NamedTuple):
    """A recurrence in three forms."""

    loop: Callable[..., tuple[Tensor, Tensor]]
    chunked: Callable[..., tuple[Tensor, Tensor]]
    kernel: str
    """Below `fla.ops`, as "module:function"."""
    half_only: bool = False
    """Whether the kernel takes half precision only."""
    floats: tuple[str, ...] = ()
    """Arguments that stay in float32 whatever the dtype of the others."""
    on_hopper: str = "kernel"
    """What computes gradients on Hopper GPUs: "kernel", "tilelang" if installed, or "nothing" (`refused_on_hopper`)."""


_delta_rule = functools.partial(Operation, recurrences.delta_rule, chunked.delta_rule, half_only=True)
_gated = functools.partial(_delta_rule, floats=("g",), on_hopper="tilelang")

OPERATIONS: dict[str, Operation] = {
    "simple_gla": Operation(
        recurrences.simple_gla, chunked.simple_gla, "simple_gla:chunk_simple_gla", floats=("g",), on_hopper="nothing"
    ),
    "delta_rule": _delta_rule("delta_rule:chunk_delta_rule"),
    "gated_delta_rule": _gated("gated_delta_rule:chunk_gated_delta_rule"),
    "gated_delta_product": _gated("gated_delta_product:chunk_gated_delta_product"),
    "rwkv7": Operation(recurrences.rwkv7, chunked.rwkv7, "rwkv7:chunk_rwkv7", floats=("w",)),
}  # fmt: skip

BACKENDS = ("auto", "loop", "chunks", "kernel")

KERNEL, CHUNKED, LOOP = "fla kernel", f"torch, chunks of {chunked.CHUNK}", "plain loop"
"""What an operation can run as."""


def unusable(name: str, device: torch.device) -> str | None:
    """Why the kernel of an operation cannot be used on a device, or None."""
    if not INSTALLED:
        return MISSING
    if device.type != "cuda":
        return f"flash-linear-attention has no kernels for {device.type}"
    return refused_on_hopper(OPERATIONS[name].on_hopper, device)


def explain(
    name: str, backend: str, device: torch.device, steps: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[str, str | None]:
    """What an operation runs as in a dtype, and why not as the kernel (None: it does, or another was chosen).

    The first is KERNEL, CHUNKED, LOOP, or "" where nothing can run. "loop", and "auto" for one token, take the loop;
    "chunks" takes chunks; "kernel" takes the kernel or nothing; else "auto" takes the kernel, or chunks where it is
    unusable.
    """
    if backend == "loop" or (backend == "auto" and steps == 1):
        return LOOP, None
    if backend == "chunks":
        return CHUNKED, None
    reason = unusable(name, device)
    if reason is None and OPERATIONS[name].half_only and dtype not in (torch.bfloat16, torch.float16):
        reason = f"its kernel takes bfloat16 and not {dtype}: use torch.autocast"
    if reason is None:
        return KERNEL, None
    return (CHUNKED if backend == "auto" else ""), reason


def check_backend(backend: str) -> str:
    """One of `BACKENDS`; ValueError for anything else, and for "kernel" where the package is missing."""
    if check_choice("backend", backend, BACKENDS) == "kernel" and not INSTALLED:
        raise ValueError(f"backend: got 'kernel', and {MISSING}")
    return backend


def run_operation(
    name: str, backend: str, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """Run an operation as `explain` says: (outputs [B, T, H, V], final state [B, H, K, V]).

    Kernels run in the dtype of autocast, all else in that of the state.

    Args:
        name: a key of `OPERATIONS`.
        backend: one of `BACKENDS`; ValueError for "kernel" where it cannot run.
        state: the initial state [B, H, K, V].
        tensors: the operation's arguments by name.
        settings: further arguments of the kernel.
    """
    operation, device = OPERATIONS[name], state.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else tensors["v"].dtype
    runs, reason = explain(name, backend, device, tensors["v"].shape[1], dtype)
    if runs == KERNEL:
        return _run_kernel(operation, dtype, state, tensors, **settings)
    plain = {LOOP: operation.loop, CHUNKED: operation.chunked}.get(runs)
    if plain is None:
        raise ValueError(f"backend: got {backend!r} on {device.type}: {reason}")
    with torch.autocast(device.type, enabled=False):
        return plain(**{key: x.to(state.dtype) for key, x in tensors.items()}, initial_state=state)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _run_kernel(
    operation: Operation, dtype: torch.dtype, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """The kernel, outside of what torch.compile traces: the package's own dispatch cannot be traced."""
    dtypes = dict.fromkeys(operation.floats, torch.float32)
    arguments = {key: x.to(dtypes.get(key, dtype)).contiguous() for key, x in tensors.items()}
    module, _, function = operation.kernel.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = getattr(import_module(f"fla.ops.{module}"), function)
        settings |= {"scale": 1.0, "initial_state": state.float(), "output_final_state": True}
        return kernel(**arguments, **settings)
