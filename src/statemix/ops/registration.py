"""The recurrences as PyTorch operators: schemas, kernels, fake tensors and vmap."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from statemix.ops import dispatch
from statemix.ops._torch_compat import keep_library
from statemix.ops.autograd import KERNEL_DEVICES, Scan, ScanBackward, operator, recorded
from statemix.ops.dispatch import RECURRENCES
from statemix.ops.layout import empty_fast, state_dtype

_LIBRARY = torch.library.Library("statemix", "DEF")
_FORWARD = (
    "(Tensor gates, Tensor values, Tensor initial_state, Tensor? cu_seqlens, str normalization, str backend)"
    " -> (Tensor, Tensor)"
)
_BACKWARD = (
    "(Tensor gates, Tensor values, Tensor states, Tensor initial_state, Tensor? cu_seqlens,"
    " Tensor grad_states, Tensor grad_final, str normalization, str backend) -> (Tensor, Tensor, Tensor)"
)
_FUSED_BACKWARD = (
    "(Tensor gates_values, Tensor states, Tensor initial_state, Tensor? cu_seqlens, Tensor grad_states,"
    " Tensor grad_final, str normalization, str backend) -> (Tensor, Tensor, Tensor)"
)


def _forward_fake(
    gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None, *_: str
) -> tuple[Tensor, Tensor]:
    return empty_fast(values, "values"), empty_fast(initial_state, "state", state_dtype(values.dtype))


def _backward_fake(
    gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_fast(gates, "gates"), empty_fast(values, "values"), empty_fast(initial_state, "state")


def _fused_backward_fake(
    gates_values: Tensor, states: Tensor, initial_state: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    d_both = torch.empty_like(gates_values, memory_format=torch.contiguous_format)
    width = gates_values.shape[-1] - states.shape[2:].numel()
    return d_both, gates_values.new_empty(width, dtype=torch.float32), empty_fast(initial_state, "state")


_PLACES = {"": ((2, 2, 1), (2, 1)), "_backward": ((2, 2, 2, 1, 2, 1), (2, 2, 1))}
"""The dimension N of every float tensor, by operator: of its arguments, of its results."""


def _vmap(recurrence: str, suffix: str, info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
    """Fold the mapped dimension into N: blocks never speak to one another, packed or not."""
    size, blocks, folded = info.batch_size, 0, list(arguments)
    floats = [k for k, x in enumerate(arguments) if isinstance(x, Tensor) and x.is_floating_point()]
    if any(dim is not None for k, dim in enumerate(in_dims) if k not in floats):
        raise ValueError("cu_seqlens: cannot be mapped by vmap, expected the same for all")
    for k, place in zip(floats, _PLACES[suffix][0], strict=True):
        x, dim = arguments[k], in_dims[k]
        mapped = x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
        blocks = mapped.shape[place + 1]
        folded[k] = mapped.movedim(0, place).flatten(place, place + 1)
    outputs = zip(operator(recurrence, suffix)(*folded), _PLACES[suffix][1], strict=True)
    split = tuple(x.unflatten(place, (size, blocks)).movedim(place, 0) for x, place in outputs)
    return split, (0,) * len(split)


def _define(name: str, schema: str, kernel: Any, fake: Any) -> None:
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    for device in KERNEL_DEVICES:
        _LIBRARY.impl(name, kernel, device.upper())
    torch.library.register_fake(f"statemix::{name}", fake, lib=_LIBRARY)


def _register(recurrence: str) -> None:
    """Define `statemix::{recurrence}_scan`, its gradient `…_backward` and, but for affine, `…_fused_backward`."""
    for suffix, schema, kernel, fake, function in (
        ("", _FORWARD, dispatch.forward, _forward_fake, Scan),
        ("_backward", _BACKWARD, dispatch.backward, _backward_fake, ScanBackward),
    ):
        name = f"{recurrence}_scan{suffix}"
        _define(name, schema, partial(kernel, recurrence), fake)
        _LIBRARY.impl(name, partial(recorded, function, suffix, recurrence), "Autograd")
        vmap = partial(_vmap, recurrence, suffix)
        torch.library.register_vmap(f"statemix::{name}", vmap, lib=_LIBRARY)
    if recurrence != "affine":
        name, kernel = f"{recurrence}_scan_fused_backward", partial(dispatch.fused_backward, recurrence)
        _define(name, _FUSED_BACKWARD, kernel, _fused_backward_fake)


for _recurrence in RECURRENCES:
    _register(_recurrence)
keep_library(_LIBRARY)
