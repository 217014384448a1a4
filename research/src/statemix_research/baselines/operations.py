"""The recurrences that have kernels of flash-linear-attention: name, plain loop, kernel, and which way runs.

The loop is the definition, runs on every device in any float dtype, and is what `statemix rivals` holds the others to.
All ways take the same tensors by the same names and carry a state [B, H, K, V]; queries are not scaled.
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
from statemix_research.baselines import chunks, loops

MISSING = missing("fla")


def installed_triton() -> tuple[int, ...]:
    """The version of the installed Triton, (3, 6, 0), or () where there is none. Triton is not imported."""
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
"""Whether flash-linear-attention and tilelang are installed, and Triton's version. They are looked up once:
torch.compile traces through the choice of a way."""


def refused_on_hopper(device: torch.device, *, tilelang: bool) -> str | None:
    """Why flash-linear-attention computes no gradients of a gated recurrence on a CUDA device, or None.

    Triton from 3.4 on and before 3.7.1 compiles its `chunk_bwd_dqkwg` wrongly for compute capability 9 (issue 640 of
    flash-linear-attention), so the package raises a RuntimeError in the backward pass. The forward pass would be right,
    but a rival that cannot be trained is none. tilelang: whether that package is a way out, which it is not where
    states are float32.
    """
    if not (3, 4) <= TRITON < (3, 7, 1) or torch.version.hip is not None or (tilelang and TILELANG):
        return None
    if torch.cuda.get_device_properties(device).major != 9:
        return None
    version, or_else = ".".join(map(str, TRITON)), ", or tilelang," if tilelang else ""
    return (
        f"flash-linear-attention refuses its backward pass on Hopper GPUs with Triton {version}, which compiles it"
        f" wrongly: Triton 3.7.1 or newer{or_else} is needed"
    )


class Operation(NamedTuple):
    """A recurrence: its loop, where its kernel is, and whether the kernel takes half precision only."""

    loop: Callable[..., tuple[Tensor, Tensor]]
    chunked: Callable[..., tuple[Tensor, Tensor]]
    """The loop with steps computed side by side in plain torch."""
    module: str
    function: str
    half_only: bool
    floats: tuple[str, ...]
    """Arguments that stay in float32 whatever the dtype of the others."""
    refused: Callable[[torch.device], str | None] | None = None
    """Why the kernel, though installed, is of no use on a CUDA device, or None."""


OPERATIONS: dict[str, Operation] = {
    "simple_gla": Operation(
        loops.simple_gla, chunks.simple_gla, "fla.ops.simple_gla", "chunk_simple_gla", False, ("g",),
        refused=functools.partial(refused_on_hopper, tilelang=False),
    ),
    "delta_rule": Operation(
        loops.delta_rule, chunks.delta_rule, "fla.ops.delta_rule", "chunk_delta_rule", True, ()
    ),
    "gated_delta_rule": Operation(
        loops.delta_rule, chunks.delta_rule, "fla.ops.gated_delta_rule", "chunk_gated_delta_rule", True, ("g",),
        refused=functools.partial(refused_on_hopper, tilelang=True),
    ),
    "gated_delta_product": Operation(
        loops.delta_rule, chunks.delta_rule, "fla.ops.gated_delta_product", "chunk_gated_delta_product", True, ("g",),
        refused=functools.partial(refused_on_hopper, tilelang=True),
    ),
    "rwkv7": Operation(loops.rwkv7, chunks.rwkv7, "fla.ops.rwkv7", "chunk_rwkv7", False, ("w",)),
}  # fmt: skip

BACKENDS = ("auto", "loop", "chunks", "kernel")

KERNEL, CHUNKED, LOOP = "fla kernel", f"torch, chunks of {chunks.CHUNK}", "plain loop"
"""The ways an operation can run."""


def unavailable(device: torch.device) -> str | None:
    """Why no kernel can run on a device, or None."""
    if not INSTALLED:
        return MISSING
    if device.type != "cuda":
        return f"flash-linear-attention has no kernels for {device.type}"
    return None


def unusable(name: str, device: torch.device) -> str | None:
    """Why the kernel of an operation cannot be used on a device, or None."""
    reason, refused = unavailable(device), OPERATIONS[name].refused
    return refused(device) if reason is None and refused is not None else reason


def explain_way(
    name: str, backend: str, device: torch.device, steps: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[str, str | None]:
    """Which way an operation runs in a dtype, and why the kernel does not (None: it does, or was not asked for).

    The way is KERNEL, CHUNKED, LOOP, or "" where nothing can. "loop", and "auto" for one token, take the loop; "chunks"
    takes chunks; "kernel" takes the kernel or nothing; else "auto" takes the kernel, or chunks where it is unusable.
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
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}, expected one of {', '.join(map(repr, BACKENDS))}")
    if backend == "kernel" and not INSTALLED:
        raise ValueError(f"backend: got 'kernel', and {unavailable(torch.device('cuda'))}")
    return backend


def operate(
    name: str, backend: str, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """Run an operation the way that `explain_way` tells: (outputs [B, T, H, V], final state).

    Kernels run in the dtype of autocast, all else in that of the state. ValueError for "kernel" where it cannot run:
    it never means anything else.
    """
    operation, device = OPERATIONS[name], state.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else tensors["v"].dtype
    way, reason = explain_way(name, backend, device, tensors["v"].shape[1], dtype)
    if way == KERNEL:
        return run_kernel(name, dtype, state, tensors, **settings)
    plain = {LOOP: operation.loop, CHUNKED: operation.chunked}.get(way)
    if plain is None:
        raise ValueError(f"backend: got {backend!r} on {device.type}: {reason}")
    with torch.autocast(device.type, enabled=False):
        return plain(**{k: x.to(state.dtype) for k, x in tensors.items()}, initial_state=state)


def run_kernel(
    name: str, dtype: torch.dtype, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """The kernel of an operation, in a dtype."""
    operation = OPERATIONS[name]
    ready = {
        key: x.to(torch.float32 if key in operation.floats else dtype).contiguous()
        for key, x in tensors.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = getattr(import_module(operation.module), operation.function)
        return kernel(**ready, scale=1.0, initial_state=state.float(), output_final_state=True, **settings)
