"""The recurrences as PyTorch operators: schemas, fake tensors, vmap and the choice of a backend."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from statemix.ops import cpu, reference, triton
from statemix.ops.autograd import Scan, ScanBackward, apply, is_differentiated, operator, recorded
from statemix.ops.layout import Role, empty_fast, in_fast_format, state_dtype

RECURRENCES = ("bdlru", "hlru", "affine")

BACKENDS: dict[str, ModuleType] = {"reference": reference, "cpu": cpu, "triton": triton}
"""Backends by name: a module with forward(...), backward(...) and unavailable(device, dtype), the reason why not."""

COMPILED = {
    "cpu": ("cpu", "compiled kernels (Numba) are installed"),
    "cuda": ("triton", "Triton is installed and compiles kernels for this device"),
}
"""What "auto" picks by type of device where it can run, and the reason to show."""

STEPS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"cpu": cpu.step}
"""Shorter ways for one token, by backend."""

FORWARD_ROLES: tuple[Role, ...] = ("values", "state")
BACKWARD_ROLES: tuple[Role, ...] = ("gates", "values", "state")
"""What the operators return."""

_KERNEL_DEVICES = ("cpu", "cuda")
"""Whose tensors the operators' own kernels take."""

_ORDINARY = (Tensor, torch.nn.Parameter)

_LIBRARY = torch.library.Library("statemix", "DEF")
_FORWARD = (
    "(Tensor gates, Tensor values, Tensor initial_state, Tensor? cu_seqlens, str normalization, str backend)"
    " -> (Tensor, Tensor)"
)
_BACKWARD = (
    "(Tensor gates, Tensor values, Tensor states, Tensor initial_state, Tensor? cu_seqlens,"
    " Tensor grad_states, Tensor grad_final, str normalization, str backend) -> (Tensor, Tensor, Tensor)"
)


def explain_backend(device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> tuple[str, str]:
    """What "auto" picks for tensors of a device and a dtype (None: any it takes), and why: (backend, reason)."""
    device = torch.device(device)
    if device.type not in COMPILED:
        return "reference", f"no compiled kernels for {device.type} tensors in this version"
    name, why = COMPILED[device.type]
    reason = BACKENDS[name].unavailable(device, dtype)
    return (name, why) if reason is None else ("reference", reason)


def check_backend(backend: str) -> str:
    """`backend` if it is "auto" or one of `BACKENDS`; ValueError listing them otherwise."""
    if backend != "auto" and backend not in BACKENDS:
        known = ", ".join(map(repr, ("auto", *BACKENDS)))
        raise ValueError(f"backend: got {backend!r}, expected one of {known}")
    return backend


def choose_backend(backend: str, device: torch.device, dtype: torch.dtype | None = None) -> str:
    """The backend to run: "auto" resolved, an explicit one checked. ValueError if unknown or unable to run."""
    if check_backend(backend) == "auto":
        return explain_backend(device, dtype)[0]
    reason = BACKENDS[backend].unavailable(device, dtype)
    if reason is not None:
        raise ValueError(f"backend: {backend!r} cannot run: {reason}")
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
    """Call the registered operator of one recurrence; arguments already checked, the backend already chosen.

    Where nobody looks at operators (no gradient, no trace, no profile), its kernel is called at once: the way through
    the dispatcher takes several times as long as one token.
    """
    arguments = (gates, values, initial_state, cu_seqlens, normalization, backend)
    if _is_unobserved(arguments[:4]):
        return _forward(recurrence, *arguments)  # type: ignore[no-any-return]
    return apply(recurrence, *arguments)


def step(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor, normalization: str, backend: str
) -> tuple[Tensor, Tensor]:
    """One token of `scan`, all tensors without T: the state that is read out, in the dtype of `values`, and the new
    one. `STEPS` may have a shorter way for it, taken where nobody looks at operators."""
    shortcut = STEPS.get(backend)
    if shortcut is not None and _is_unobserved((gates, values, state)):
        return shortcut(recurrence, gates, values, state, normalization)
    states, new = scan(
        recurrence, gates.unsqueeze(1), values.unsqueeze(1), state, None, normalization, backend
    )
    return states[:, 0], new


def _is_unobserved(tensors: tuple[Any, ...]) -> bool:
    """Whether these are ordinary tensors of which no history, trace or profile is kept."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and not is_differentiated(tensors)
        and all(map(_is_ordinary, tensors))
        and tensors[0].device.type in _KERNEL_DEVICES
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._autograd._profiler_enabled()
    )


def _is_ordinary(tensor: Tensor | None) -> bool:
    """Whether a tensor is no subclass, and its memory holds its numbers: no lazy negation, no zeros without memory."""
    if type(tensor) in _ORDINARY:
        return not (tensor.is_neg() or tensor._is_zerotensor())  # type: ignore[union-attr]
    return tensor is None


def _forward(recurrence: str, *arguments: Any) -> Any:
    results = BACKENDS[arguments[-1]].forward(recurrence, *arguments[:-1])
    return tuple(map(_owned, results, FORWARD_ROLES))  # as the fakes say


def _backward(recurrence: str, *arguments: Any) -> Any:
    results = BACKENDS[arguments[-1]].backward(recurrence, *arguments[:-1])
    return tuple(map(_owned, results, BACKWARD_ROLES))


def _owned(tensor: Tensor, role: Role) -> Tensor:
    """The tensor in the fast format, and no view: what it is a view of would forbid changing it in place."""
    fast = in_fast_format(tensor, role)
    return fast.clone() if fast._is_view() else fast


def _forward_fake(
    gates: Tensor, values: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None, *_: str
) -> tuple[Tensor, Tensor]:
    return empty_fast(values, "values"), empty_fast(initial_state, "state", state_dtype(values.dtype))


def _backward_fake(
    gates: Tensor, values: Tensor, states: Tensor, initial_state: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_fast(gates, "gates"), empty_fast(values, "values"), empty_fast(initial_state, "state")


def _vmap(recurrence: str, backward: bool, info: Any, in_dims: Any, *arguments: Any) -> tuple[Any, Any]:
    """Fold the mapped dimension into N: blocks never speak to one another, packed or not."""
    size = info.batch_size
    folded: list[Any] = []
    floats = blocks = 0
    for argument, dim in zip(arguments, in_dims, strict=True):
        if not isinstance(argument, Tensor) or not argument.is_floating_point():
            if dim is not None:
                raise ValueError("cu_seqlens: cannot be mapped by vmap, expected the same for all")
            folded.append(argument)
            continue
        mapped = (
            argument.unsqueeze(0).expand(size, *argument.shape) if dim is None else argument.movedim(dim, 0)
        )
        place = 1 if floats in _state_places(backward) else 2
        floats, blocks = floats + 1, mapped.shape[place + 1]
        folded.append(mapped.movedim(0, place).flatten(place, place + 1))
    outputs = operator(recurrence, "_backward" if backward else "")(*folded)
    places = [2, 2, 1] if backward else [2, 1]
    split = tuple(
        out.unflatten(place, (size, blocks)).movedim(place, 0)
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
    for key in map(str.upper, _KERNEL_DEVICES):
        _LIBRARY.impl(name, partial(_forward, recurrence), key)
        _LIBRARY.impl(f"{name}_backward", partial(_backward, recurrence), key)
    _LIBRARY.impl(name, partial(recorded, Scan, "", recurrence), "Autograd")
    _LIBRARY.impl(f"{name}_backward", partial(recorded, ScanBackward, "_backward", recurrence), "Autograd")
    torch.library.register_fake(f"statemix::{name}", _forward_fake, lib=_LIBRARY)
    torch.library.register_fake(f"statemix::{name}_backward", _backward_fake, lib=_LIBRARY)
    torch.library.register_vmap(f"statemix::{name}", partial(_vmap, recurrence, False), lib=_LIBRARY)
    torch.library.register_vmap(f"statemix::{name}_backward", partial(_vmap, recurrence, True), lib=_LIBRARY)


for _recurrence in RECURRENCES:
    _register(_recurrence)


def _keep_to_the_end(library: torch.library.Library) -> None:
    """Spare a library torch's own clean-up at exit, which runs before the atexit callbacks registered earlier."""
    for finalizer in tuple(weakref.finalize._registry):  # type: ignore[attr-defined]
        alive = finalizer.peek()
        if alive is not None and alive[0] is library:
            finalizer.atexit = False


_keep_to_the_end(_LIBRARY)
