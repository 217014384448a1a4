"""The next-token loss, without all logits at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from statemix.models import LanguageModel

IGNORED = -100
"""A target that counts for nothing."""

LOGITS = 1 << 27
"""Numbers of a chunk's logits, where no chunk is given: 512 MB in float32."""


class LanguageModelLoss(nn.Module):
    r"""A language model with its loss: tokens [B, T + 1] -> the sum of $-\log p(\text{token}_{t+1})$ in nats.

    The head's product and the cross-entropy run chunk by chunk, so that logits [chunk, V] are the largest that exist.

    Args:
        model: The language model.
        autocast: A context for the forward pass.
        chunk: Tokens of a chunk; 0 takes `LOGITS` / V.
        compiled: Whether torch.compile joins what follows the head's product.

    Example:
        >>> model = LanguageModel(10, 16, lambda dim: BDLRU(dim, block_size=4))
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> loss = LanguageModelLoss(model)(tokens)
        >>> logits, _ = model(tokens[:, :-1])
        >>> torch.allclose(loss, torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="sum"))
        True
    """

    def __init__(
        self, model: LanguageModel, autocast: AbstractContextManager[Any] | None = None, chunk: int = 0,
        compiled: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.compiled = model, compiled
        self._autocast = autocast or torch.autocast("cpu", enabled=False)
        self.chunk = chunk or max(1, LOGITS // model.vocab_size)

    def forward(
        self, tokens: Tensor, cu_seqlens: Tensor | None = None, counted: Tensor | None = None
    ) -> Tensor:
        """tokens int64 [B, T + 1], cu_seqlens [S + 1] over the B·T inputs, counted bool [B] -> the sum, float32 [].

        With cu_seqlens each document begins with an empty state. Rows that are not `counted` add nothing.
        """
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if counted is not None:
            targets = targets.masked_fill(~counted.unsqueeze(1), IGNORED)
        if cu_seqlens is not None:
            inputs, targets = inputs.reshape(1, -1), targets.reshape(1, -1)
        with self._autocast:
            x, _ = self.model.hidden(inputs, None, cu_seqlens)  # [B, T, D]
            dtype = (
                torch.get_autocast_dtype(x.device.type)
                if torch.is_autocast_enabled(x.device.type)
                else x.dtype
            )
        head = self.model.head
        return chunked_cross_entropy(
            x.flatten(0, 1), head.weight, head.bias, targets.flatten(), self.chunk, dtype, self.compiled
        )


def chunked_cross_entropy(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    chunk: int,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> Tensor:
    """The sum of the cross-entropies of x Wᵀ + b [n, V] against targets [n], in float32: [].

    x [n, D], weight [V, D], bias [V] or None; chunk: rows of x whose logits exist at once; dtype: of the products, by
    default that of x; compiled: whether torch.compile joins what follows a product. Targets of -100 are left out.
    Losses, softmax and the sum over chunks are in float32. Gradients are computed with the logits, so that the product
    is not taken twice; not differentiable a second time.

    >>> x, weight = torch.randn(6, 4), torch.randn(9, 4)
    >>> targets = torch.arange(6)
    >>> loss = chunked_cross_entropy(x, weight, None, targets, chunk=2)
    >>> torch.allclose(loss, torch.nn.functional.cross_entropy(x @ weight.T, targets, reduction="sum"))
    True
    """
    tensors = (x, weight, bias)
    learns = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)
    options = (chunk, dtype or x.dtype, learns, compiled)
    return _ChunkedCrossEntropy.apply(*tensors, targets, *options)  # type: ignore[no-any-return]


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk: int, dtype: torch.dtype,
        learns: bool, compiled: bool,
    ) -> Tensor:  # fmt: skip
        low, low_bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        grads = (
            [None if one is None else torch.zeros_like(one) for one in (x, weight, bias)] if learns else []
        )
        losses = _compiled_losses() if compiled else _losses
        total = x.new_zeros((), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            for begin in range(0, len(x), chunk):
                part = slice(begin, begin + chunk)
                rows = x[part].to(dtype)
                loss, errors = losses(rows, low, low_bias, targets[part], learns)
                total += loss
                if learns:
                    _add_gradients(errors, rows, low, targets[part], part, grads)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scaled = (None if one is None else one * grad.to(one.dtype) for one in ctx.saved_tensors)
        return (*scaled, None, None, None, None, None)


def _losses(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, learns: bool
) -> tuple[Tensor, Tensor]:
    """The sum of a chunk's losses, and softmax less one-hot [n, V] (else the logits): a few passes over n·V numbers."""
    counted, places = _counted(targets), torch.where(targets == IGNORED, 0, targets).unsqueeze(-1)
    logits = F.linear(rows, weight, bias)  # [n, V]
    logs = F.log_softmax(logits, -1, dtype=torch.float32)
    loss = -(logs.gather(-1, places) * counted).sum()
    if not learns:
        return loss, logits
    if torch.compiler.is_compiling():  # one kernel
        right = torch.arange(weight.shape[0], device=targets.device) == places
        return loss, (logs.exp() - right.float()).to(rows.dtype)
    errors = logs.exp_().scatter_add_(-1, places, logs.new_full((1, 1), -1.0).expand_as(places))
    return loss, errors.to(rows.dtype)


@functools.cache
def _compiled_losses() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_losses, dynamic=False)


def _counted(targets: Tensor) -> Tensor:
    """Which rows count [n, 1]."""
    return (targets != IGNORED).unsqueeze(-1)


def _add_gradients(
    errors: Tensor, rows: Tensor, weight: Tensor, targets: Tensor, part: slice, grads: list[Tensor | None]
) -> None:
    """Put or add a chunk's gradients into those of x, weight and bias."""
    counted = _counted(targets)
    for_x, for_weight, for_bias = grads
    assert for_x is not None and for_weight is not None
    for_x[part] = (errors @ weight) * counted
    for_weight += errors.t() @ (rows * counted)
    if for_bias is not None:
        for_bias += (errors * counted).sum(0, dtype=for_bias.dtype)
