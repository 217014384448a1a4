"""A residual block around a mixer, and a stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn.convolution import ShortConvolution
from statemix.nn.layer import RecurrentLayer
from statemix.nn.mixer import check_input, check_size
from statemix.nn.padding import LeftPadding, State, run_padded
from statemix.ops._torch_compat import is_hooked

NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
"""Normalisation layers by name."""


def check_norm(name: str) -> str:
    """`name` if it is a key of `NORMS`; ValueError otherwise."""
    if name not in NORMS:
        raise ValueError(f"norm: got {name!r}, expected one of {', '.join(map(repr, NORMS))}")
    return name


class SwiGLU(nn.Module):
    """x [..., dim] -> W_down(silu(W_gate x) * W_up x), without bias.

    Args:
        dim: Width of input and output.
        width: Inside; by default 8/3 dim, rounded up to a multiple of 16.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        TypeError: `width` is no whole number.
        ValueError: `width` is below 1.

    Example:
        >>> mlp = SwiGLU(12)
        >>> mlp(torch.randn(2, 5, 12)).shape, mlp.down.weight.shape
        (torch.Size([2, 5, 12]), torch.Size([12, 32]))

    Source: arXiv 2002.05202.
    """

    def __init__(
        self,
        dim: int,
        width: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        inner = -(-(8 * dim // 3) // 16) * 16 if width is None else check_size("width", width)
        factory: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        self.gate = nn.Linear(dim, inner, **factory)
        self.up = nn.Linear(dim, inner, **factory)
        self.down = nn.Linear(inner, dim, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class BlockState(NamedTuple):
    """What a block with a convolution carries: the mixer's state, and the last inputs [S, dim, conv_size - 1].

    Example:
        >>> state = Block(4, BDLRU(4, block_size=2), conv_size=3).initial_state(5)
        >>> state.mixer.shape, state.convolution.shape
        (torch.Size([5, 2, 2]), torch.Size([5, 4, 2]))
    """

    mixer: State
    convolution: Tensor


class Block(nn.Module):
    r"""A mixer in a residual stream, and what language models put around it, each part off unless named.

    $x_t \leftarrow x_t + y_t$, where y is the mixer's output for $u_t = \mathrm{norm}(x_t)$. The parts change it:

    - `conv_size`: the mixer reads $c_t = \mathrm{silu}(\sum_j w_j \odot u_{t-j})$, not $u_t$ (`ShortConvolution`).
    - `output_gate`: $y_t \leftarrow \mathrm{silu}(W u_t) \odot y_t$ with W [dim, dim].
    - `mlp`: behind it $x_t \leftarrow x_t + \mathrm{SwiGLU}(\mathrm{norm}(x_t))$.
    - `dropout`: on both branches, before they are added, in training.

    A block is a mixer itself (see `statemix.nn.mixer`). Its state is the mixer's; with a convolution it is a
    `BlockState(mixer, convolution)`.

    Args:
        dim: Width of the residual stream.
        mixer: A module with `forward`, `step` and `initial_state`, of input and output width `dim`.
        norm: A key of `NORMS`, "rms" or "layer".
        conv_size: Taps of the short causal convolution, at least 2; None for none.
        output_gate: Whether the mixer's output is gated.
        mlp: Whether a SwiGLU follows.
        mlp_width: Its inner width; by default 8/3 dim, rounded up to a multiple of 16.
        dropout: The probability p of dropping a number, 0 <= p < 1.
        device: Of the parameters around the mixer.
        dtype: Of the parameters around the mixer.

    Raises:
        TypeError: The mixer is no module, or a size no whole number.
        ValueError: A size, name or probability is out of range, or the mixer has another width.

    Example:
        >>> block = Block(16, BDLRU(16, block_size=4), conv_size=4, output_gate=True, mlp=True)
        >>> x, state = block(torch.randn(2, 10, 16))
        >>> x_next, state = block.step(torch.randn(2, 16), state)
        >>> x.shape, x_next.shape, state.mixer.shape, state.convolution.shape
        (torch.Size([2, 10, 16]), torch.Size([2, 16]), torch.Size([2, 4, 4]), torch.Size([2, 16, 3]))

    Source: arXiv 2602.12021, language models (norm, mixer, SwiGLU); arXiv 2312.00752 (convolution and gate).
    """

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        norm: str = "rms",
        conv_size: int | None = None,
        output_gate: bool = False,
        mlp: bool = False,
        mlp_width: int | None = None,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.dropout = check_size("dim", dim), _check_dropout(dropout)
        _check_mixer(mixer, self.dim)
        if mlp_width is not None and not mlp:
            raise ValueError(f"mlp_width: got {mlp_width!r}, expected None without an MLP (mlp=False)")
        mlp_width = None if mlp_width is None else check_size("mlp_width", mlp_width)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        kind = NORMS[check_norm(norm)]
        self.mixer_norm = kind(self.dim, **factory)
        self.convolution = None if conv_size is None else ShortConvolution(self.dim, conv_size, **factory)
        self.mixer = mixer
        self.output_gate = nn.Linear(self.dim, self.dim, bias=False, **factory) if output_gate else None
        self.mlp_norm = kind(self.dim, **factory) if mlp else None
        self.mlp = SwiGLU(self.dim, mlp_width, **factory) if mlp else None

    def forward(
        self,
        x: Tensor,
        state: State = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | LeftPadding | None = None,
    ) -> tuple[Tensor, State]:
        """x [B, T, dim], state of S sequences or None (`initial_state`) -> (x [B, T, dim], new state).

        Args:
            x: The residual stream.
            state: As a call before returned it, or as `initial_state` makes it.
            cu_seqlens: Bounds 0 … T [S+1] of S sequences packed into one row (B = 1).
            mask: bool [B, T], True where a token is real: one run of True in each row. The result at real places and
                the state are those of each row's sequence alone, on the CPU bit for bit; padding gives zeros. Each
                row runs alone there. On a GPU the mask is read once to be checked, which waits for the device.

        Raises:
            TypeError, ValueError: An argument has another dtype, shape or device, or a row of the mask has a gap.
        """
        check_input("x", x, ("B", "T", self.dim), "[B, T, dim]")
        if mask is None or isinstance(mask, LeftPadding):
            return self._run(x, state, partial(_whole, cu_seqlens), mask)
        check_unpacked(cu_seqlens)
        return run_padded(self.forward, x, state, mask, keeps_zero=self.keeps_zero)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """One token: x [B, dim], state or None -> (x [B, dim], new state). Equal to `forward` on T = 1."""
        check_input("x", x, ("B", self.dim), "[B, dim]")
        if is_hooked(self):  # what a hook does, as gathering weights, it does around a call
            x, state = self(x.unsqueeze(1), state)
            return x[:, 0], state
        return self._run(x, state, _token, None)

    def initial_state(self, batch_size: int) -> State:
        """The state of `batch_size` sequences before their first token, on the block's device."""
        state = self.mixer.initial_state(batch_size)  # type: ignore[operator]
        if self.convolution is None:
            return state
        return BlockState(state, self.convolution.initial_state(batch_size))

    def reset_parameters(self) -> None:
        """Draw and fill every parameter anew, as the constructor does: after `to_empty`, say. The mixer comes first."""
        reset(self.mixer)
        for child in self.children():
            if child is not self.mixer:
                reset(child)

    @property
    def keeps_zero(self) -> bool:
        """Whether zeros into the mixer leave its empty state as it is: BD-LRU and H-LRU that start from zeros, with
        values without bias."""
        mixer = self.mixer
        if not isinstance(mixer, RecurrentLayer) or mixer.initial is not None:
            return False
        return getattr(mixer.values, "bias", None) is None

    def extra_repr(self) -> str:
        """What no submodule shows."""
        return f"dim={self.dim}, dropout={self.dropout}"

    def _run(
        self, x: Tensor, state: State, call: Callable[..., tuple[Tensor, State]], mask: LeftPadding | None
    ) -> tuple[Tensor, State]:
        """x [..., dim]; `call` runs a mixer on all tokens or on one."""
        u = self.mixer_norm(x)
        if mask is not None:
            u = u.masked_fill(~mask.real.unsqueeze(-1), 0)
        if self.convolution is None:
            y, state = call(self.mixer, u, state)
        else:
            before = BlockState(None, None) if state is None else _check_state(state)  # type: ignore[arg-type]
            c, inputs = call(self.convolution, u, before.convolution)
            y, state = call(self.mixer, c, before.mixer)
            state = BlockState(state, inputs)
        if self.output_gate is not None:
            y = F.silu(self.output_gate(u)) * y
        x = x + self._drop(y)
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self._drop(self.mlp(self.mlp_norm(x)))
        return x, state

    def _drop(self, y: Tensor) -> Tensor:
        return F.dropout(y, self.dropout, self.training) if self.dropout else y


class Stack(nn.Sequential):
    """Blocks, or any mixers, one after another: a `torch.nn.Sequential` that hands a list of states through.

    `torch.nn.Sequential` passes one value on, and a mixer returns two. A stack is a mixer itself (see
    `statemix.nn.mixer`); its state is a list, one state each. It is indexed, sliced and extended as
    `torch.nn.Sequential` is.

    Args:
        *blocks: Modules with `forward`, `step` and `initial_state`.

    Example:
        >>> stack = Stack(*(Block(16, BDLRU(16, block_size=4), mlp=True) for _ in range(3)))
        >>> x, states = stack(torch.randn(2, 10, 16))
        >>> x_next, states = stack.step(torch.randn(2, 16), states)
        >>> x.shape, x_next.shape, len(states), len(stack[:2])
        (torch.Size([2, 10, 16]), torch.Size([2, 16]), 3, 2)
    """

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        states: Sequence[State] | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | LeftPadding | None = None,
    ) -> tuple[Tensor, list[State]]:
        """x [B, T, dim], states (one a block) or None, cu_seqlens [S+1], mask [B, T] -> (x [B, T, dim], new states).

        cu_seqlens and mask as in `Block.forward`; the mask is read once for all blocks.
        """
        if mask is None or isinstance(mask, LeftPadding):
            return self._each(x, states, partial(_whole, cu_seqlens, mask=mask))
        check_unpacked(cu_seqlens)
        return run_padded(self.forward, x, states, mask, keeps_zero=self.keeps_zero)

    def step(self, x: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """One token: x [B, dim], states or None -> (x [B, dim], new states)."""
        return self._each(x, states, _token)

    def initial_state(self, batch_size: int) -> list[State]:
        """The states of `batch_size` sequences before their first token."""
        return [block.initial_state(batch_size) for block in self]  # type: ignore[operator]

    def reset_parameters(self) -> None:
        """Draw and fill every parameter anew."""
        for block in self:
            reset(block)

    @property
    def keeps_zero(self) -> bool:
        """As `Block.keeps_zero`, for all."""
        return all(getattr(block, "keeps_zero", False) for block in self)

    def check_states(self, states: Sequence[State] | None) -> Sequence[State]:
        """The states, or None for each block. ValueError for another number of them."""
        if states is None:
            return [None] * len(self)
        if not isinstance(states, Sequence) or len(states) != len(self):
            came = f"{len(states)} of them" if isinstance(states, Sequence) else type(states).__name__
            raise ValueError(f"states: got {came}, expected a list of {len(self)}, one per layer")
        return states

    def _each(
        self, x: Tensor, states: Sequence[State] | None, call: Callable[..., tuple[Tensor, State]]
    ) -> tuple[Tensor, list[State]]:
        after = []
        for block, state in zip(self, self.check_states(states), strict=True):
            x, state = call(block, x, state)
            after.append(state)
        return x, after


def reset(module: nn.Module) -> None:
    """Reset a module, or its parts if it has no `reset_parameters`."""
    if callable(own := getattr(module, "reset_parameters", None)):
        own()
    else:
        for child in module.children():
            reset(child)


def check_unpacked(cu_seqlens: Tensor | None) -> None:
    """A mask comes without bounds."""
    if cu_seqlens is not None:
        raise ValueError(
            "mask: got a mask beside cu_seqlens, expected one of them (packed rows have no padding)"
        )


def _whole(
    cu_seqlens: Tensor | None, module: nn.Module, x: Tensor, state: State, mask: LeftPadding | None = None
) -> tuple[Tensor, State]:
    """Run a mixer on all tokens, with the arguments that are not None: not every mixer takes all."""
    if mask is not None:
        return module(x, state, None, mask)  # type: ignore[no-any-return]
    return module(x, state) if cu_seqlens is None else module(x, state, cu_seqlens)  # type: ignore[no-any-return]


def _token(module: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    return module.step(x, state)  # type: ignore[no-any-return, operator]


def _check_state(state: State) -> BlockState:
    if not isinstance(state, (tuple, list)) or len(state) != 2:
        raise TypeError(f"state: got {type(state).__name__}, expected BlockState(mixer, convolution)")
    return BlockState(*state)


def _check_mixer(mixer: nn.Module, dim: int) -> None:
    if not isinstance(mixer, nn.Module):
        raise TypeError(f"mixer: got {type(mixer).__name__}, expected a module")
    width = getattr(mixer, "dim", dim)
    if width != dim:
        raise ValueError(f"mixer: got one of dim = {width}, expected dim = {dim}")


def _check_dropout(dropout: float) -> float:
    if not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout!r}, expected a number 0 <= dropout < 1")
    return float(dropout)
