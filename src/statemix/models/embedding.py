"""An embedding whose gradient is the same bits on every GPU run, and a few kernels instead of a sort."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 256
"""The largest vocabulary whose gradient is a product with one-hot rows; a larger one sorts its tokens."""


class Embedding(nn.Embedding):
    """`torch.nn.Embedding`; the gradient of a small vocabulary on a GPU is a product of matrices.

    Scattered additions come in any order, and a sort of the tokens is ten kernels.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [...] -> [..., dim]."""
        if tokens.is_cuda and tokens.dim() == 2 and self.num_embeddings <= SMALL:
            return lookup(self.weight, tokens)
        return F.embedding(tokens, self.weight)


class _Lookup(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, tokens: Tensor) -> Tensor:  # type: ignore[override]
        return F.embedding(tokens, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        weight, tokens = inputs
        ctx.save_for_backward(tokens)
        ctx.size = weight.shape[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (tokens,) = ctx.saved_tensors
        rows = torch.arange(ctx.size, device=tokens.device)[None, :, None]
        hot = (tokens[:, None] == rows).to(grad.dtype)  # [B, V, T]
        with torch.autocast(grad.device.type, enabled=False):
            return torch.bmm(hot, grad).sum(0), None  # a row of the batch at a time: many sums side by side


def lookup(weight: Tensor, tokens: Tensor) -> Tensor:
    """weight [V, dim], tokens [B, T] -> [B, T, dim]."""
    return _Lookup.apply(weight, tokens)  # type: ignore[no-any-return]
