"""What every baseline shares: one tensor as its state, packed sequences, checks of arguments."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from statemix.nn.mixer import check_cu_seqlens, check_input, check_size, check_tensor, placement, state_dtype

State = dict[str, Tensor]
"""A state, part by part: each [S, *shape]."""


class Baseline(nn.Module):
    """Base class: x [B, T, dim] -> y [B, T, dim], with a state [S, n] of S sequences.

    The state is one float32 tensor (float64 in a float64 layer): the parts in `shapes`, flattened, one after another.
    Subclasses implement `advance`; sequences packed by cu_seqlens run through it one after another.

    Args:
        dim: width of input and output.
        shapes: the state's parts by name, without the dimension of sequences.
    """

    ARGUMENTS: ClassVar[dict[str, str]] = {}
    """Meaning of each argument, from the docstring's Args, for `statemix train --help`."""

    start: ClassVar[dict[str, float]] = {}
    """Initial value of a part, where it is not 0."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        section = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")[2]
        arguments = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
        cls.ARGUMENTS = cls.ARGUMENTS | {name: " ".join(text.rstrip(".").split()) for name, text in arguments}

    def __init__(self, dim: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.dim, self.shapes = dim, shapes
        self.state_size = sum(map(math.prod, shapes.values()))

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x [B, T, dim] with T > 0 and the state before it -> (y [B, T, dim], the state after it)."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [S, n] or None (initial), cu_seqlens [S+1] or None -> (y [B, T, dim], new state).

        Raises ValueError or TypeError naming the argument.
        """
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]", self.dtype)
        sequences = x.shape[0]
        if cu_seqlens is not None:
            check_cu_seqlens(cu_seqlens, *x.shape[:2])
            sequences = cu_seqlens.shape[0] - 1
        if state is None:
            state = self.initial_state(sequences).to(x.device)
        check_state(state, (sequences, self.state_size), "[S, n]", x)
        if cu_seqlens is None:
            return self._run(x, state)
        sequences_with_states = zip(x.split(cu_seqlens.diff().tolist(), 1), state.split(1), strict=True)
        results = [self._run(*pair) for pair in sequences_with_states]
        return torch.cat([y for y, _ in results], 1), torch.cat([after for _, after in results])

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim], state [B, n] -> (y [B, dim], new state). Equal to `forward` with T = 1."""
        check_input("x", x, ("B", self.dim), "[B, dim]", self.dtype)
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state

    def initial_state(self, batch_size: int) -> Tensor:
        """The state [S, n] of S = batch_size sequences before their first token, on the layer's device."""
        check_size("batch_size", batch_size, 0)
        device, dtype = placement(self)
        state = torch.zeros(batch_size, self.state_size, dtype=state_dtype(dtype), device=device)
        for name, part in self._split_state(state):
            if name in self.start:
                part.fill_(self.start[name])
        return state

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return placement(self)[1]

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1] == 0:
            return x.clone(), state.clone()
        dtype = state_dtype(self.dtype)
        split = self._split_state(state.to(dtype))
        parts = {name: part.unflatten(1, self.shapes[name]) for name, part in split}
        y, after = self.advance(x, parts)
        return y, torch.cat([after[name].to(dtype).flatten(1) for name in self.shapes], 1)

    def _split_state(self, state: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The parts of a state [S, n] by name, each [S, size]."""
        yield from zip(self.shapes, state.split(list(map(math.prod, self.shapes.values())), 1), strict=True)


def check_state(state: Tensor, shape: tuple[int | str, ...], letters: str, x: Tensor) -> None:
    """A floating-point tensor of `shape` (a str takes any size) on the device of x: ValueError or TypeError."""
    check_tensor("state", state, shape, letters)
    if state.device != x.device:
        raise ValueError(f"state: got device {state.device}, expected that of x, {x.device}")


def split_heads(name: str, width: int, heads: int) -> int:
    """width / heads, which must be whole: ValueError naming the argument."""
    check_size(name, heads)
    if width % heads:
        raise ValueError(f"{name}: got {heads}, expected a divisor of the width {width}")
    return width // heads


def check_choice(name: str, value: str, choices: Mapping[str, object] | tuple[str, ...]) -> str:
    """One of `choices`; ValueError listing them for anything else."""
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, choices))}")
    return value
