"""The recurrences as PyTorch operators: schemas, fake tensors, vmap and the choice of a backend."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from statemix.ops import cpu, reference
from statemix.ops.autograd import Scan, ScanBackward, operator
from statemix.ops.layout import empty_fast, from_fast_order, state_dtype, to_fast_order

RECURRENCES = ("bdlru", "hlru", "affine")

BACKENDS: dict[str, ModuleType] = {"reference": reference, "cpu": cpu}
"""Backends by name: a module with forward(...) and backward(...)."""

_LIBRARY = torch.library.Library("statemix", "DEF")
_FORWARD = (
    "(Tensor gates, Tensor values, Tensor initial_state, Tensor? cu_seqlens, str normalization, str backend)"
    " -> (Tensor, Tensor)"
)
_BACKWARD = (
    "(Tensor gates, Tensor values, Tensor states, Tensor initial_state, Tensor? cu_seqlens,"
    " Tensor grad_states, Tensor grad_final, str normalization, str backend) -> (Tensor, Tensor, Tensor)"
)


def explain_backend(device: torch.device | str = "cpu") -> tuple[str, str]:
    """What "auto" picks on a device, and why: (backend, reason)."""
    device = torch.device(device)
    if device.type != "cpu":
        return "reference", f"no compiled kernels for {device.type} tensors in this version"
    reason = cpu.unavailable()
    if reason is None:
        return "cpu", "compiled kernels (Numba) are installed"
    return "reference", reason


def choose_backend(backend: str, device: torch.device) -> str:
    """The backend to run: "auto" resolved, an explicit one checked. ValueError if unknown or unable to run."""
    if backend == "auto":
        return explain_backend(device)[0]
    if backend not in BACKENDS:
        known = ", ".join(map(repr, ("auto", *BACKENDS)))
        raise ValueError(f"backend: got {backend!r}, expected one of {known}")
    if backend == "cpu":
        if device.type != "cpu":
            raise ValueError(f"backend: 'cpu' needs tensors on the CPU, got {device}")
        reason = cpu.unavailable()
        if reason is not None:
            raise ValueError(f"backend: 'cpu' cannot run: {reason}")
    return backend


def scan(
    recurrence: str,
    gates: Tensor,
    values: Tensor,
    initial_state: Tensor,
    cu_seqlens: Tensor | None,
    normalization: str,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Call the registered operator of one recurrence; arguments already checked, the backend already chosen."""
    arguments = (gates, values, initial_state, cu_seqlens, normalization, backend)
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return Scan.apply(recurrence, *arguments)  # torch.func sees autograd only from outside an operator
    return operator(recurrence)(*arguments)


def _forward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    return _in_layout(BACKENDS[arguments[-1]].forward(recurrence, *arguments[:-1]))


def _backward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _in_layout(BACKENDS[arguments[-1]].backward(recurrence, *arguments[:-1]))


def _in_layout(results: tuple[Tensor, ...]) -> Any:
    """The last result is a state [S, N, m], the others [B, T, N, ...]: all with N innermost, as the fakes say."""
    *sequences, state = results
    fast = (from_fast_order(to_fast_order(x).contiguous()) for x in sequences)
    return (*fast, state.transpose(1, 2).contiguous().transpose(1, 2))


def _forward_fake(
    gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None, *_: str
) -> tuple[Tensor, Tensor]:
    dtype = state_dtype(values.dtype)
    return empty_fast(values.shape, values, values.dtype), _empty_state(initial_state, dtype)


def _backward_fake(
    gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_fast(gates.shape, gates, gates.dtype),
        empty_fast(values.shape, values, values.dtype),
        _empty_state(initial_state, initial_state.dtype),
    )


def _empty_state(state: Tensor, dtype: torch.dtype) -> Tensor:
    """[S, N, m] with N innermost in memory."""
    sequences, blocks, m = state.shape
    return state.new_empty((sequences, m, blocks), dtype=dtype).transpose(1, 2)


def _vmap(recurrence: str, backward: bool, info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
    """Fold the mapped dimension into N: blocks never speak to one another, packed or not."""
    size = info.batch_size
    folded: list[Any] = []
    floats = 0
    for argument, dim in zip(arguments, in_dims, strict=True):
        if not isinstance(argument, Tensor) or not argument.is_floating_point():
            if dim is not None:
                raise ValueError("cu_seqlens: cannot be mapped by vmap, expected the same for all")
            folded.append(argument)
            continue
        mapped = (
            argument.unsqueeze(0).expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)
        )
        blocks = 1 if floats in _state_places(backward) else 2
        floats += 1
        folded.append(mapped.movedim(0, blocks).flatten(blocks, blocks + 1))
    outputs = operator(recurrence, "_backward" if backward else "")(*folded)
    places = [2, 2, 1] if backward else [2, 1]
    split = tuple(
        out.unflatten(place, (size, -1 if size else 0)).movedim(place, 0)
        for out, place in zip(outputs, places, strict=True)
    )
    return split, (0,) * len(split)


def _state_places(backward: bool) -> tuple[int, ...]:
    """Which float arguments, in order, are states [S, N, m] rather than [B, T, N, ...]."""
    return (3, 5) if backward else (2,)


def _register(recurrence: str) -> None:
    name = f"{recurrence}_scan"
    _LIBRARY.define(name + _FORWARD, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.define(f"{name}_backward" + _BACKWARD, tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _LIBRARY.impl(name, partial(_forward, recurrence), key)
        _LIBRARY.impl(f"{name}_backward", partial(_backward, recurrence), key)
    _LIBRARY.impl(name, partial(Scan.apply, recurrence), "Autograd")
    _LIBRARY.impl(f"{name}_backward", partial(ScanBackward.apply, recurrence), "Autograd")
    torch.library.register_fake(f"statemix::{name}", _forward_fake, lib=_LIBRARY)
    torch.library.register_fake(f"statemix::{name}_backward", _backward_fake, lib=_LIBRARY)
    torch.library.register_vmap(f"statemix::{name}", partial(_vmap, recurrence, False), lib=_LIBRARY)
    torch.library.register_vmap(f"statemix::{name}_backward", partial(_vmap, recurrence, True), lib=_LIBRARY)


for _recurrence in RECURRENCES:
    _register(_recurrence)
