"""The model: embedding, blocks of PD-SSM and a head."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix_research.automata.pdssm.scan import copy_rows
from statemix_research.automata.recipes import Recipe

DICTIONARY = 8
"""K, the matrices in a mixture."""


class PDSSMTracker(nn.Module):
    """Embedding, blocks of PD-SSM and a head; no residual and no SwiGLU. Source: arXiv 2509.22284 and its code.

    `forward` is that of `Tracker`; a layer's state is [B, N, 2] with N = dim complex numbers (real, imaginary).
    """

    alone = True
    """The kernels take one run."""

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

    def forward(self, x: Tensor, state: Tensor | None, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, dim] -> (y [B, T, dim], state [B, N, 2]). tokens: [B, T], if x [V, dim] is of all."""
        sizes, angles = self.magnitude(x), 2 * math.pi * self.phase(x)
        factors = torch.stack([sizes * angles.cos(), sizes * angles.sin()], -1).flatten(-2)
        inputs, weights = F.linear(x, self.inputs), self.choice(x).softmax(-1)
        if tokens is not None:  # looked up by a product, whose gradient needs no sorting
            widths = (self.dim, 2 * self.dim, 2 * self.dim)
            every = F.one_hot(tokens, len(x)).to(x) @ torch.cat([x, factors, inputs], -1)
            x, factors, inputs = every.split(widths, -1)
        factors, inputs = (one.unflatten(-1, (self.dim, 2)) for one in (factors, inputs))  # [B, T, N, 2]
        if state is None:
            state = torch.zeros_like(inputs[:, 0])
            state[:, 0, 0] = 1.0
        states = copy_rows(weights, self.dictionary, factors, inputs, state, tokens)
        h = F.dropout(states.flatten(-2), self.dropout, self.training)
        return self.norm(self.readout(h) + self.skip * x), states[:, -1]
