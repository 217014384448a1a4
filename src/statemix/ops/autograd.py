"""First and second derivatives of the scans, and their tangents (forward mode)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from statemix.ops import reference
from statemix.ops.tangent import pushforward, tangent_scan


def operator(recurrence: str, suffix: str = "") -> Any:
    """The registered operator of a recurrence, or (suffix "_backward") of its gradient."""
    return getattr(torch.ops.statemix, f"{recurrence}_scan{suffix}")


def below(recurrence: str, suffix: str, *arguments: Any) -> Any:
    """The operator below autograd: its results have no history."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(recurrence, suffix)(*arguments)


def transformed() -> bool:
    """Whether a transform of torch.func is at work, which sees autograd only from outside an operator."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def nests_forward_mode() -> bool:
    """Whether forward mode runs inside forward mode, where torch gives zeros for any autograd function."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(one.key() == torch._C._functorch.TransformType.Jvp for one in stack) > 1


def apply(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    """A scan with its history and tangents: by its operator or, under a transform, around it."""
    if not transformed():
        return operator(recurrence)(*arguments)  # type: ignore[no-any-return]
    if nests_forward_mode():
        return reference.scan(recurrence, *arguments[:-1])
    return Scan.apply(recurrence, *arguments)  # type: ignore[no-any-return]


class Scan(torch.autograd.Function):
    """Gradients to gates, values and the initial state, from both outputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The operator below autograd."""
        return below(recurrence, "", *arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs and the states; the normalised gates are never kept."""
        ctx.recurrence, gates, values, initial_state, cu_seqlens, ctx.normalization, ctx.backend = inputs
        kept = (gates, values, output[0], initial_state, cu_seqlens)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)  # vmap takes both for one list

    @staticmethod
    def jvp(ctx: Any, recurrence: None, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """The tangent of a scan is a scan. The states are taken anew, so that they carry tangents of their own."""
        gates, values, _, initial_state, cu_seqlens = ctx.saved_tensors
        inputs = [gates, values, initial_state]
        states, _ = apply(ctx.recurrence, *inputs, cu_seqlens, ctx.normalization, ctx.backend)
        kind, *inputs = tangent_scan(
            ctx.recurrence, inputs, states, cu_seqlens, tangents[:3], ctx.normalization
        )
        d_states, d_final = apply(kind, *inputs, cu_seqlens, "none", ctx.backend)
        return d_states.to(states.dtype), d_final

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_final: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """The gradient operator, itself differentiable."""
        arguments = (*ctx.saved_tensors, grad_states, grad_final, ctx.normalization, ctx.backend)
        if transformed():
            grads = ScanBackward.apply(ctx.recurrence, *arguments)
        else:
            grads = operator(ctx.recurrence, "_backward")(*arguments)
        return None, *grads, None, None, None


class ScanBackward(torch.autograd.Function):
    """Second derivatives, through the reference loop: right for every backend, slow for all."""

    generate_vmap_rule = True

    @staticmethod
    def forward(recurrence: str, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """The gradient operator below autograd."""
        return below(recurrence, "_backward", *arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs; the states follow from them."""
        ctx.recurrence, gates, values, _, initial_state, cu_seqlens, grad_states, grad_final, *rest = inputs
        ctx.normalization = rest[0]
        kept = (gates, values, initial_state, grad_states, grad_final, cu_seqlens)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)

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


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents."""
    return forward_ad._current_level >= 0


def is_differentiated(arguments: tuple[Any, ...]) -> bool:
    """Whether a history of what happens to these is kept, or a tangent taken along."""
    if in_forward_mode():
        return True
    if not torch.is_grad_enabled():
        return False
    return any(isinstance(x, Tensor) and x.requires_grad for x in arguments)


def recorded(function: type[torch.autograd.Function], suffix: str, recurrence: str, *arguments: Any) -> Any:
    """An operator with its history where one is kept, else the operator alone: a step without gradients, and the
    gradient of a plain training step, spare themselves an autograd function of Python."""
    if is_differentiated(arguments):
        return function.apply(recurrence, *arguments)
    return below(recurrence, suffix, *arguments)


_FORWARDS: tuple[Any, ...] = (Scan.forward, ScanBackward.forward)
for _forward in _FORWARDS:  # else their signatures are worked out anew in every call
    _forward.__signature__ = inspect.signature(_forward)
