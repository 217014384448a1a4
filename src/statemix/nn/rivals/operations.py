"""The recurrences that have kernels of flash-linear-attention: name, plain loop, kernel, and which of them runs.

The loop is the definition, runs on every device in any float dtype, and is what `statemix rivals` holds the kernel to.
Both take the same tensors by the same names and carry a state [B, H, K, V]; queries are not scaled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from statemix.nn.rivals import loops

INSTALL = 'pip install "statemix[rivals]"'


class Operation(NamedTuple):
    """A recurrence: its loop, where its kernel is, and whether the kernel takes half precision only."""

    loop: Callable[..., tuple[Tensor, Tensor]]
    module: str
    function: str
    half_only: bool
    floats: tuple[str, ...]
    """Arguments that stay in float32 whatever the dtype of the others."""


OPERATIONS: dict[str, Operation] = {
    "simple_gla": Operation(loops.simple_gla, "fla.ops.simple_gla", "chunk_simple_gla", False, ("g",)),
    "delta_rule": Operation(loops.delta_rule, "fla.ops.delta_rule", "chunk_delta_rule", True, ()),
    "gated_delta_rule": Operation(
        loops.delta_rule, "fla.ops.gated_delta_rule", "chunk_gated_delta_rule", True, ("g",)
    ),
    "gated_delta_product": Operation(
        loops.delta_rule, "fla.ops.gated_delta_product", "chunk_gated_delta_product", True, ("g",)
    ),
    "rwkv7": Operation(loops.rwkv7, "fla.ops.rwkv7", "chunk_rwkv7", False, ("w",)),
}

BACKENDS = ("auto", "loop", "kernel")


def unavailable(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, or None."""
    if find_spec("fla") is None:
        return f"flash-linear-attention is not installed: {INSTALL}"
    if device.type != "cuda":
        return f"flash-linear-attention has no kernels for {device.type}"
    return None


def check_backend(backend: str) -> str:
    """ "auto", "loop" or "kernel"; ValueError for anything else, and for "kernel" where the package is missing."""
    if backend not in BACKENDS:
        raise ValueError(f"backend: got {backend!r}, expected one of {', '.join(map(repr, BACKENDS))}")
    if backend == "kernel" and find_spec("fla") is None:
        raise ValueError(f"backend: got 'kernel', and {unavailable(torch.device('cuda'))}")
    return backend


def operate(
    name: str, backend: str, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """Run an operation: (outputs [B, T, H, V], final state).

    "auto" runs one token, and everything that is not on a GPU, through the loop, all else through the kernel, and
    raises a ValueError where that is not installed: nothing falls back silently.
    """
    device, steps = state.device, tensors["v"].shape[1]
    looped = backend == "loop" or (backend == "auto" and (device.type != "cuda" or steps == 1))
    if looped:
        with torch.autocast(device.type, enabled=False):
            return OPERATIONS[name].loop(
                **{k: x.to(state.dtype) for k, x in tensors.items()}, initial_state=state
            )
    reason = unavailable(device)
    if reason is not None:
        raise ValueError(f"backend: got {backend!r} on {device.type}: {reason}")
    return run_kernel(name, state, tensors, **settings)


def run_kernel(
    name: str, state: Tensor, tensors: dict[str, Tensor], **settings: Any
) -> tuple[Tensor, Tensor]:
    """The kernel of an operation, in the dtype that autocast gives or that of "v"."""
    operation = OPERATIONS[name]
    device = state.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors["v"].dtype
    if operation.half_only and kind not in (torch.bfloat16, torch.float16):
        raise ValueError(
            f"dtype: got {kind}, the kernel of {name} takes bfloat16: use torch.autocast or backend='loop'"
        )
    ready = {
        key: x.to(torch.float32 if key in operation.floats else kind).contiguous()
        for key, x in tensors.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = getattr(import_module(operation.module), operation.function)
        return kernel(**ready, scale=1.0, initial_state=state.float(), output_final_state=True, **settings)
