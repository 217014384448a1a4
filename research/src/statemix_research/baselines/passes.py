"""The forward and backward pass of a whole layer, as they are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Passes(NamedTuple):
    """Forward, and forward with the gradients of the input and of all weights; the names of those that are zero."""

    forward: Callable[[], Tensor]
    both: Callable[[], tuple[Tensor | None, ...]]
    zero_gradients: list[str]


def layer_passes(layer: nn.Module, shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> Passes:
    """The passes of a layer on random x [B, T, width]. RuntimeError if its gradients are wrong (`zero_gradients`).

    Matrices are drawn from N(0, 0.02²): some layers start with zeros, which would leave gradients empty.
    """
    layer = layer.to(device, dtype)
    for parameter in layer.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    for module in layer.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    x, grad = (torch.randn(*shape, device=device, dtype=dtype) for _ in range(2))
    names, leaves = zip(*layer.named_parameters(), strict=True)
    x.requires_grad_()

    def forward() -> Tensor:
        y = layer(x)
        return y[0] if isinstance(y, tuple) else y  # type: ignore[no-any-return]

    def both() -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(forward(), (x, *leaves), grad, allow_unused=True)

    return Passes(forward, both, zero_gradients(["x", *names], both()))


def zero_gradients(names: Sequence[str], grads: Sequence[Tensor | None]) -> list[str]:
    """The names whose gradient is zero or missing. RuntimeError for one that is not finite, or for a zero first."""
    empty = []
    for name, grad in zip(names, grads, strict=True):
        norm = 0.0 if grad is None else float(grad.float().norm())
        if not norm < float("inf"):
            raise RuntimeError(f"gradient of {name}: not finite")
        if norm == 0:
            empty.append(name)
    if names[0] in empty:
        raise RuntimeError(f"gradient of {names[0]}: zero")
    return empty
