"""First and second derivatives of the scans."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from statemix.ops import reference


def operator(recurrence: str, suffix: str = "") -> Any:
    """The registered operator of a recurrence, or (suffix "_backward") of its gradient."""
    return getattr(torch.ops.statemix, f"{recurrence}_scan{suffix}")


def below(recurrence: str, suffix: str, *arguments: Any) -> Any:
    """The operator below autograd: its results have no history."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(recurrence, suffix)(*arguments)


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
        ctx.save_for_backward(gates, values, output[0], initial_state, cu_seqlens)

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_final: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """The gradient operator, itself differentiable."""
        arguments = (*ctx.saved_tensors, grad_states, grad_final, ctx.normalization, ctx.backend)
        if torch._C._are_functorch_transforms_active():
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
        ctx.save_for_backward(gates, values, initial_state, grad_states, grad_final, cu_seqlens)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        """The gradient of the loop's gradient."""
        *inputs, cu_seqlens = ctx.saved_tensors

        def loop(gates: Tensor, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            return reference.scan(ctx.recurrence, gates, values, state, cu_seqlens, ctx.normalization)

        def gradient(gates: Tensor, values: Tensor, state: Tensor, *grad_outputs: Tensor) -> Any:
            return torch.func.vjp(loop, gates, values, state)[1](grad_outputs)

        d_gates, d_values, d_state, *d_grads = torch.func.vjp(gradient, *inputs)[1](grads)
        return None, d_gates, d_values, None, d_state, None, *d_grads, None, None


def recorded(function: type[torch.autograd.Function], suffix: str, recurrence: str, *arguments: Any) -> Any:
    """An operator with its history where one is kept, else the operator alone: a step without gradients, and the
    gradient of a plain training step, spare themselves an autograd function of Python."""
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments)
    return function.apply(recurrence, *arguments) if wanted else below(recurrence, suffix, *arguments)


_FORWARDS: tuple[Any, ...] = (Scan.forward, ScanBackward.forward)
for _forward in _FORWARDS:  # else their signatures are worked out anew in every call
    _forward.__signature__ = inspect.signature(_forward)
