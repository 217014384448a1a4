"""What every rival shares: one tensor as its state, packed sequences, checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.plain import placement
from statemix.nn.projection import check_input, check_size
from statemix.ops.checks import check_cu_seqlens, check_tensor
from statemix.ops.layout import state_dtype

Parts = dict[str, Tensor]
"""A state, part by part: each [S, *shape]."""


class Rival(nn.Module):
    """Base of the rivals: x [B, T, dim] -> y [B, T, dim], state [S, n].

    The state is one float32 tensor (float64 in a float64 layer): the parts that `parts` names, flattened, one after
    another. Subclasses write `advance`; sequences packed by cu_seqlens are run through it one after another.
    """

    ARGUMENTS: ClassVar[dict[str, str]] = {
        "hidden_size": "numbers of h and of c; the width if left out",
        "state_dim": "numbers of a state's column, complex where the layer is; the width if it has no default",
        "radius": "where the moduli of the eigenvalues start, uniform in area",
        "max_phase": "the largest phase of an eigenvalue at the start, in radians",
        "expand": "inner width as a multiple of the width",
        "expand_v": "width of the values as a multiple of that of the keys",
        "head_dim": "channels of a head; the width divided by the heads if it has no default",
        "heads": "heads",
        "conv_size": "taps of the short convolution",
        "negative_eigenvalues": "whether eigenvalues lie in [-1, 1] instead of [0, 1]",
        "factors": "Householder factors of a token",
        "rank": "of the low-rank maps of decay and rate; 2.5 √width, rounded, if left out",
        "chunk": "steps computed side by side",
        "position": 'how positions are encoded: "rotary" or "none"',
        "dictionary_size": "matrices that the permutations are mixed from",
        "gate_dim": "width inside the maps of modulus and phase; the width if left out",
        "magnitude_bias": "the logit that the modulus starts with",
    }
    """What the arguments mean, for `statemix train --help`."""

    fill: ClassVar[dict[str, float]] = {}
    """What a part starts with, where it is not 0."""

    def __init__(self, dim: int, parts: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.dim, self.parts = dim, parts
        self.state_size = sum(map(math.prod, parts.values()))

    def advance(self, x: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """x [B, T, dim] with T > 0, from a state: (y [B, T, dim], the state after it)."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, n] or None (a new one), cu_seqlens [S+1] or None -> (y [B, T, dim], new state).

        Errors: ValueError or TypeError naming the argument.
        """
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self.dtype)
        sequences = x.shape[0]
        if cu_seqlens is not None:
            check_cu_seqlens(cu_seqlens, *x.shape[:2])
            sequences = cu_seqlens.shape[0] - 1
        if state is None:
            state = self.initial_state(sequences).to(x.device)
        self._check_state(state, sequences, x)
        if cu_seqlens is None:
            return self._run(x, state)
        pieces = zip(x.split(cu_seqlens.diff().tolist(), 1), state.split(1), strict=True)
        done = [self._run(*piece) for piece in pieces]
        return torch.cat([y for y, _ in done], 1), torch.cat([after for _, after in done])

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state [B, n] -> (y [B, dim], new state). Equal to `forward` on T = 1."""
        check_input("x", x, ("B", self.dim), "[B, dim]", self.dtype)
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state

    def initial_state(self, batch_size: int) -> Tensor:
        """The state [S, n] of S = batch_size sequences before their first token, on the layer's device."""
        check_size("batch_size", batch_size, 0)
        device, dtype = placement(self)
        kind = state_dtype(dtype)
        starts = [
            torch.full((batch_size, math.prod(shape)), self.fill.get(name, 0.0), dtype=kind, device=device)
            for name, shape in self.parts.items()
        ]
        return torch.cat(starts, 1)

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return placement(self)[1]

    def _check_state(self, state: Tensor, sequences: int, x: Tensor) -> None:
        check_tensor("state", state, (sequences, self.state_size), "[S, n]")
        if state.device != x.device:
            raise ValueError(f"state: got device {state.device}, expected that of x, {x.device}")

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1] == 0:
            return x.clone(), state.clone()
        sizes = [math.prod(shape) for shape in self.parts.values()]
        pieces = zip(self.parts.items(), state.to(state_dtype(self.dtype)).split(sizes, 1), strict=True)
        y, after = self.advance(x, {name: piece.unflatten(1, shape) for (name, shape), piece in pieces})
        flat = [after[name].to(state_dtype(self.dtype)).flatten(1) for name in self.parts]
        return y, torch.cat(flat, 1)


def heads_of(name: str, width: int, heads: int) -> int:
    """width / heads, which must be whole: ValueError naming the argument."""
    check_size(name, heads)
    if width % heads:
        raise ValueError(f"{name}: got {heads}, expected a divisor of the width {width}")
    return width // heads
