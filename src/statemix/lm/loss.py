"""The next-token loss, without all logits at once."""

from __future__ import annotations

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

    Example:
        >>> model = LanguageModel(10, 16, lambda dim: BDLRU(dim, block_size=4))
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> loss = LanguageModelLoss(model)(tokens)
        >>> logits, _ = model(tokens[:, :-1])
        >>> torch.allclose(loss, torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:], reduction="sum"))
        True
    """

    def __init__(
        self, model: LanguageModel, autocast: AbstractContextManager[Any] | None = None, chunk: int = 0
    ) -> None:
        super().__init__()
        self.model, self._autocast = model, autocast or torch.autocast("cpu", enabled=False)
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
            x.flatten(0, 1), head.weight, head.bias, targets.flatten(), self.chunk, dtype
        )


def chunked_cross_entropy(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    chunk: int,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The sum of the cross-entropies of x Wᵀ + b [n, V] against targets [n], in float32: [].

    x [n, D], weight [V, D], bias [V] or None; chunk: rows of x whose logits exist at once; dtype: of the products, by
    default that of x. Targets of -100 are left out. Losses, softmax and the sum over chunks are in float32. Gradients
    are computed with the logits, so that the product is not taken twice; not differentiable a second time.

    >>> x, weight = torch.randn(6, 4), torch.randn(9, 4)
    >>> targets = torch.arange(6)
    >>> loss = chunked_cross_entropy(x, weight, None, targets, chunk=2)
    >>> torch.allclose(loss, torch.nn.functional.cross_entropy(x @ weight.T, targets, reduction="sum"))
    True
    """
    tensors = (x, weight, bias)
    learns = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)
    return _ChunkedCrossEntropy.apply(*tensors, targets, chunk, dtype or x.dtype, learns)  # type: ignore[no-any-return]


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk: int,
        dtype: torch.dtype,
        learns: bool,
    ) -> Tensor:
        low, bias_low = weight.to(dtype), None if bias is None else bias.to(dtype)
        grads = [
            torch.empty_like(x),
            torch.zeros_like(weight),
            None if bias is None else torch.zeros_like(bias),
        ]
        total = x.new_zeros((), dtype=torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            for begin in range(0, len(x), chunk):
                part = slice(begin, begin + chunk)
                total += _chunk(
                    x[part].to(dtype), low, bias_low, targets[part], part, grads if learns else None
                )
        if learns:
            ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        scaled = (None if one is None else one * grad.to(one.dtype) for one in ctx.saved_tensors)
        return (*scaled, None, None, None, None)


def _chunk(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    part: slice,
    grads: list[Tensor | None] | None,
) -> Tensor:
    """The sum of a chunk's losses; its gradients are put or added into those of (x, weight, bias), if these are given.

    Nothing as wide as the vocabulary is touched more often than it must be.
    """
    counted = (targets != IGNORED).unsqueeze(-1)  # [n, 1]
    places = torch.where(counted, targets.unsqueeze(-1), 0)
    logs = F.log_softmax(F.linear(rows, weight, bias), -1, dtype=torch.float32)  # [n, V]
    loss = -(logs.gather(-1, places) * counted).sum()
    if grads is None:
        return loss
    errors = (
        logs.exp_().scatter_add_(-1, places, logs.new_full((1, 1), -1.0).expand_as(places)).to(rows.dtype)
    )
    for_x, for_weight, for_bias = grads
    assert for_x is not None and for_weight is not None
    for_x[part] = (errors @ weight) * counted
    for_weight += errors.t() @ (rows * counted)
    if for_bias is not None:
        for_bias += (errors * counted).sum(0, dtype=for_bias.dtype)
    return loss
