"""First and second derivatives of the scans, and their tangents (forward mode)."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor

from statemix.ops import dispatch, reference
from statemix.ops._torch_compat import (
    below_autograd,
    in_forward_mode,
    in_nested_forward_mode,
    in_transform,
    is_observed,
    is_ordinary,
)
from statemix.ops.tangent import pushforward, tangent_scan
from statemix.ops.zeros import shared_zeros

KERNEL_DEVICES = ("cpu", "cuda")
"""Whose tensors the operators' own kernels take."""


def operator(recurrence: str, suffix: str = "") -> Any:
    """The registered operator of a recurrence, or (suffix "_backward") of its gradient."""
    return getattr(torch.ops.statemix, f"{recurrence}_scan{suffix}")


def scan(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    """A scan with its history and tangents: gates, values, initial state, bounds, normalisation and chosen backend.

    Where nobody but autograd looks (no tangent, no trace, no profile), the backend is called at once: the way through
    torch's dispatcher takes several times as long as one token. Under a transform the autograd function is outside.
    """
    if is_direct(arguments[:4]):
        if _is_differentiated(arguments):
            return DirectScan.apply(recurrence, *arguments)  # type: ignore[no-any-return]
        return dispatch.forward(recurrence, *arguments)  # type: ignore[no-any-return]
    if not in_transform():
        return operator(recurrence)(*arguments)  # type: ignore[no-any-return]
    if in_nested_forward_mode():
        return reference.scan(recurrence, *arguments[:-1])
    return Scan.apply(recurrence, *arguments)  # type: ignore[no-any-return]


def step(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor, normalization: str, backend: str
) -> tuple[Tensor, Tensor]:
    """One token of `scan`, all tensors without T; a backend may have a shorter way, where nobody looks at operators."""
    shortcut, tensors = dispatch.STEPS.get(backend), (gates, values, state)
    if shortcut is not None and is_direct(tensors) and not _is_differentiated(tensors):
        return shortcut(recurrence, gates, values, state, normalization)
    states, new = scan(
        recurrence, gates.unsqueeze(1), values.unsqueeze(1), state, None, normalization, backend
    )
    return states[:, 0], new


def is_direct(tensors: tuple[Any, ...]) -> bool:
    """Whether these are ordinary tensors without tangents, a trace or a profile: nobody looks at operators."""
    if is_observed() or in_forward_mode() or tensors[0].device.type not in KERNEL_DEVICES:
        return False
    return all(tensor is None or is_ordinary(tensor) for tensor in tensors)


def _is_differentiated(arguments: tuple[Any, ...]) -> bool:
    """Whether autograd records what happens to these, or they may carry tangents."""
    if in_forward_mode():
        return True
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(x, Tensor) and x.requires_grad for x in arguments)


def below(recurrence: str, suffix: str, *arguments: Any) -> Any:
    """The operator below autograd: its results have no history."""
    with below_autograd():
        return operator(recurrence, suffix)(*arguments)


def recorded(function: type[torch.autograd.Function], suffix: str, recurrence: str, *arguments: Any) -> Any:
    """An operator with its history where autograd records one, else alone: Python's autograd functions are slow."""
    if _is_differentiated(arguments):
        return function.apply(recurrence, *arguments)
    return below(recurrence, suffix, *arguments)


class Scan(torch.autograd.Function):
    """Gradients to gates, values and the initial state, from both outputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The operator below autograd."""
        return below(recurrence, "", *arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save the inputs and the states, never the normalised gates."""
        ctx.recurrence, gates, values, initial_state, cu_seqlens, ctx.normalization, ctx.backend = inputs
        saved = (gates, values, output[0], initial_state, cu_seqlens)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)  # vmap takes both for one list

    @staticmethod
    def jvp(ctx: Any, recurrence: None, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The tangent of a scan is a scan. The states are taken anew, so that they carry tangents of their own."""
        gates, values, _, initial_state, cu_seqlens = ctx.saved_tensors
        inputs = [gates, values, initial_state]
        states, _ = scan(ctx.recurrence, *inputs, cu_seqlens, ctx.normalization, ctx.backend)
        kind, *inputs = tangent_scan(
            ctx.recurrence, inputs, states, cu_seqlens, tangents[:3], ctx.normalization
        )
        d_states, d_final = scan(kind, *inputs, cu_seqlens, "none", ctx.backend)
        return d_states.to(states.dtype), d_final

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_final: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """The gradient operator, itself differentiable."""
        arguments = (*ctx.saved_tensors, grad_states, grad_final, ctx.normalization, ctx.backend)
        if in_transform():
            grads = ScanBackward.apply(ctx.recurrence, *arguments)
        else:
            grads = operator(ctx.recurrence, "_backward")(*arguments)
        return None, *grads, None, None, None


class DirectScan(torch.autograd.Function):
    """`Scan` where `is_direct`: without torch's dispatcher, and without what lets transforms look inside."""

    @staticmethod
    def forward(ctx: Any, recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:
        """The backend itself; gradients that nobody gives stay None."""
        gates, values, initial_state, cu_seqlens, *ctx.names = arguments
        states, final = dispatch.forward(recurrence, *arguments)
        ctx.recurrence = recurrence
        ctx.save_for_backward(gates, values, states, initial_state, cu_seqlens)
        ctx.set_materialize_grads(False)
        return states, final

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor | None, grad_final: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        """The backend itself, or the operator where somebody looks now: it is differentiable."""
        _, _, states, initial_state, _ = saved = ctx.saved_tensors
        direct = is_direct((states, grad_states, grad_final)) and not torch.is_grad_enabled()
        grads = given_or_zeros((grad_states, grad_final), (states, initial_state))
        arguments = (*saved, *grads, *ctx.names)
        if in_transform():
            return None, *ScanBackward.apply(ctx.recurrence, *arguments), None, None, None
        gradient = (
            partial(dispatch.backward, ctx.recurrence) if direct else operator(ctx.recurrence, "_backward")
        )
        return None, *gradient(*arguments), None, None, None


def given_or_zeros(grads: tuple[Tensor | None, ...], like: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients, zeros where there is none."""
    pairs = zip(grads, like, strict=True)
    return [shared_zeros(x, x.shape, x.dtype) if grad is None else grad for grad, x in pairs]


class ScanBackward(torch.autograd.Function):
    """Second derivatives, through the reference loop: right for every backend, slow for all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """The gradient operator below autograd."""
        return below(recurrence, "_backward", *arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save the inputs; the states follow from them."""
        ctx.recurrence, gates, values, _, initial_state, cu_seqlens, grad_states, grad_final, *rest = inputs
        ctx.normalization = rest[0]
        saved = (gates, values, initial_state, grad_states, grad_final, cu_seqlens)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def _gradient(ctx: Any) -> tuple[Any, list[Tensor]]:
        """The loop's gradient as a function, and what it is a function of."""
        *inputs, cu_seqlens = ctx.saved_tensors

        def loop(gates: Tensor, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return reference.scan(ctx.recurrence, gates, values, state, cu_seqlens, ctx.normalization)

        def gradient(gates: Tensor, values: Tensor, state: Tensor, *grad_outputs: Tensor) -> Any:
            return torch.func.vjp(loop, gates, values, state)[1](grad_outputs)

        return gradient, inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """The gradient of the loop's gradient."""
        gradient, inputs = ScanBackward._gradient(ctx)
        d_gates, d_values, d_state, *d_grads = torch.func.vjp(gradient, *inputs)[1](grads)
        return None, d_gates, d_values, None, d_state, None, *d_grads, None, None

    @staticmethod
    def jvp(  # type: ignore[override]
        ctx: Any, _: None, gates: Any, values: Any, states: Any, state: Any, bounds: Any, *grads: Any
    ) -> tuple[Tensor, ...]:
        """The tangent of the loop's gradient; the states' own follows from the inputs'."""
        gradient, inputs = ScanBackward._gradient(ctx)
        tangents = (gates, values, state, *grads[:2])
        given = [torch.zeros_like(x) if d is None else d for x, d in zip(inputs, tangents, strict=True)]
        return pushforward(gradient, inputs, given)


_FORWARDS: tuple[Any, ...] = (Scan.forward, ScanBackward.forward)
for _forward in _FORWARDS:  # else their signatures are worked out anew in every call
    _forward.__signature__ = inspect.signature(_forward)
