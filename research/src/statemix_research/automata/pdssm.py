"""PD-SSM as its authors train it on regular languages, which is not the layer of `statemix_research.baselines`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix_research.automata.recipes import Recipe

DICTIONARY = 8
"""K, the matrices in a mixture."""


class PDSSMTracker(nn.Module):
    """Embedding, blocks of PD-SSM and a head; no residual and no SwiGLU. Source: arXiv 2509.22284 and its code.

    `forward` is that of `Tracker`; a layer's state is [B, N, 2] with N = dim complex numbers (real, imaginary).
    """

    def __init__(self, recipe: Recipe, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, recipe.dim)
        self.layers = nn.ModuleList(Block(recipe.dim, recipe.dropout) for _ in range(recipe.depth))
        self.head = nn.Linear(recipe.dim, vocab_size)

    def forward(
        self, tokens: Tensor, states: list[Tensor] | None = None, temperature: Tensor | float = 1.0
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits [B, T, V], the states after the last token, and a penalty of 0."""
        x, after = self.embedding.weight, []
        for k, layer in enumerate(self.layers):
            x, state = layer(x, None if states is None else states[k], None if k else tokens)
            after.append(state)
        return self.head(x), after, x.new_zeros(())


class Block(nn.Module):
    """h_t = d_t ⊙ (P_t h_{t-1}) + B x_t over N complex numbers, y_t = norm(C h_t + D ⊙ x_t).

    h_0 is the first unit vector. A row of P_t has one 1, where that of Σ_k w_k M_k is largest; w is a softmax of x_t.
    |d_t| is a sigmoid, the phase of d_t 2π times one, each of a two-layer map.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dim, self.dropout = dim, dropout
        self.magnitude, self.phase = (
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), nn.Sigmoid())
            for _ in range(2)
        )
        self.choice = nn.Linear(dim, DICTIONARY, bias=False)
        self.dictionary = nn.Parameter(torch.randn(DICTIONARY, dim, dim) / math.sqrt(dim))
        self.inputs = nn.Parameter(torch.randn(2 * dim, dim) / math.sqrt(2 * dim))
        self.skip = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.readout = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, state: Tensor | None, which: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, dim] -> (y [B, T, dim], state [B, N, 2]). which: tokens [B, T], if x [V, dim] is of all."""
        square = self.dictionary.shape[1:]
        mixture = (self.choice(x).softmax(-1) @ self.dictionary.flatten(1)).unflatten(-1, square)
        sizes, angles = self.magnitude(x), 2 * math.pi * self.phase(x)
        factors = torch.stack([sizes * angles.cos(), sizes * angles.sin()], -1)  # [..., N, 2]
        inputs = F.linear(x, self.inputs).unflatten(-1, (self.dim, 2))
        x, factors, inputs = (_looked_up(one, which) for one in (x, factors, inputs))
        if state is None:
            state = torch.zeros_like(inputs[:, 0])
            state[:, 0, 0] = 1.0
        states, _ = _Copied.apply(mixture, which, factors, inputs, state)
        h = F.dropout(states.flatten(-2), self.dropout, self.training)
        return self.norm(self.readout(h) + self.skip * x), states[:, -1]


def _looked_up(x: Tensor, which: Tensor | None) -> Tensor:
    return x if which is None else F.embedding(which, x.flatten(1)).unflatten(-1, x.shape[1:])


class _Copied(torch.autograd.Function):
    """States [B, T, N, 2] of h_t[n] = d_t[n] h_{t-1}[c_t[n]] + b_t[n], and the columns c [B, T, N], the largest of each
    row of mixture [B, T, N, N], or of mixture [V, N, N] at the tokens `which`.

    No P_t is made. Gradients pass to the mixture as through a softmax of its rows in the place of P_t.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        mixture: Tensor, which: Tensor | None, factors: Tensor, inputs: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        columns, states = mixture.argmax(-1), []
        columns = columns if which is None else columns[which]
        h, d, b = (torch.view_as_complex(x) for x in (start, factors, inputs))
        for t in range(columns.shape[1]):
            h = torch.addcmul(b[:, t], d[:, t], h.gather(1, columns[:, t]))
            states.append(h)
        return torch.view_as_real(torch.stack(states, 1)), columns

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        mixture, which, factors, _, start = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(mixture, which, factors, start, *output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        mixture, which, factors, start, states, columns = ctx.saved_tensors
        turned = torch.view_as_complex(factors).conj().resolve_conj()
        carried, totals, backs = torch.zeros_like(start), [], []
        for t in reversed(range(columns.shape[1])):
            total = grad[:, t] + carried
            back = torch.view_as_real(turned[:, t] * torch.view_as_complex(total))
            carried = torch.zeros_like(total).scatter_add(
                1, columns[:, t].unsqueeze(-1).expand_as(back), back
            )
            totals.append(total)
            backs.append(back)
        total, back = (torch.stack(x[::-1], 1) for x in (totals, backs))
        before = torch.cat([start.unsqueeze(1), states[:, :-1]], 1)
        copied = torch.view_as_complex(before.gather(2, columns.unsqueeze(-1).expand_as(before)))
        to_factors = torch.view_as_real(torch.view_as_complex(total) * copied.conj())
        if which is None:
            to_mixture = _spread(mixture.device.type)(mixture, back, before)
        else:
            at = [(which == token)[..., None, None] * back for token in range(len(mixture))]
            to_mixture = _through(
                mixture, torch.stack([torch.einsum("btmc,btnc->mn", x, before) for x in at])
            )
        return to_mixture, None, to_factors, total, carried


def _through(mixture: Tensor, grad: Tensor) -> Tensor:
    """A gradient of the rows' softmax as one of what it is taken of."""
    soft = mixture.softmax(-1)
    return soft * (grad - (soft * grad).sum(-1, keepdim=True))


def _outer(mixture: Tensor, back: Tensor, before: Tensor) -> Tensor:
    """`_through` of the real outer products of back and before [B, T, N, 2]."""
    (a, b), (c, d) = back.unbind(-1), before.unbind(-1)
    return _through(mixture, a.unsqueeze(-1) * c.unsqueeze(-2) + b.unsqueeze(-1) * d.unsqueeze(-2))


@functools.cache
def _spread(device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`_outer`, in one kernel on a GPU, where eight passes over [B, T, N, N] would be most of a step."""
    return torch.compile(_outer, dynamic=False) if device == "cuda" else _outer
