"""What both models are made of: an embedding, a pre-norm residual stack of mixers and SwiGLUs, the first weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.models.embedding import Embedding
from statemix.nn.mixer import check_size

NORMS: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
"""Normalisation layers by name."""

INITIAL_DEVIATION = 0.02


def whole_number(name: str, size: int) -> int:
    """A whole number of at least 1, or a ValueError naming it."""
    try:
        return check_size(name, size)
    except TypeError as error:
        raise ValueError(str(error)) from None


class SwiGLU(nn.Module):
    """x [..., dim] -> W_down(silu(W_gate x) * W_up x), without bias; 8/3 dim inside, rounded up to a multiple of 16."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = -(-(8 * dim // 3) // 16) * 16
        self.gate = nn.Linear(dim, inner, bias=False)
        self.up = nn.Linear(dim, inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """x + mixer(norm(x)), then x + SwiGLU(norm(x))."""

    def __init__(self, dim: int, mixer: nn.Module, norm: type[nn.Module]) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = norm(dim), mixer
        self.mlp_norm, self.mlp = norm(dim), SwiGLU(dim)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, T, dim], state [B, N, m] or None -> (x, new state)."""
        y, state = self.mixer(self.mixer_norm(x), state)
        return self._finish(x + y), state

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One token: x [B, dim] -> (x [B, dim], new state)."""
        y, state = self.mixer.step(self.mixer_norm(x), state)  # type: ignore[operator]
        return self._finish(x + y), state

    def _finish(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.mlp_norm(x))


class Backbone(nn.Module):
    """Base of the models: embedding, `depth` layers, and N(0, 0.02²) for every linear and embedding weight.

    vocab_size: V. dim: D. mixer: a function dim -> mixer. depth: how many pairs of mixer and SwiGLU.
    norm: a key of `NORMS`. Errors: ValueError or TypeError naming the argument.
    Source: arXiv 2602.12021, synthetic tasks.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        mixer: Callable[[int], nn.Module],
        *,
        depth: int = 2,
        norm: str = "layer",
    ) -> None:
        super().__init__()
        vocab_size, dim, depth = (
            whole_number(*one) for one in (("vocab_size", vocab_size), ("dim", dim), ("depth", depth))
        )
        if norm not in NORMS:
            raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(map(repr, NORMS))}")
        if not callable(mixer):
            raise TypeError(f"mixer: got {type(mixer).__name__}, expected a function dim -> module")
        self.vocab_size, self.dim = vocab_size, dim
        self.embedding = Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(Layer(dim, mixer(dim), NORMS[norm]) for _ in range(depth))

    def initial_states(self, batch_size: int) -> list[Tensor]:
        """Zeros [B, N, m] for every layer."""
        return [layer.mixer.initial_state(batch_size) for layer in self.layers]  # type: ignore[operator, union-attr]

    def _run(self, x: Tensor, states: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """The stack on x [B, T, dim], from the states given or from zeros."""
        carried = self._check_states(states)
        after = []
        for layer, state in zip(self.layers, carried, strict=True):
            x, state = layer(x, state)
            after.append(state)
        return x, after

    def _check_states(self, states: Sequence[Tensor] | None) -> Sequence[Tensor | None]:
        if states is None:
            return [None] * len(self.layers)
        if not isinstance(states, Sequence) or len(states) != len(self.layers):
            came = f"{len(states)} of them" if isinstance(states, Sequence) else type(states).__name__
            raise ValueError(f"states: got {came}, expected a list of {len(self.layers)}, one per layer")
        return states

    def _check_tokens(self, tokens: Tensor, dims: int, letters: str) -> None:
        if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
            came = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            raise TypeError(f"tokens: got {came}, expected an integer tensor {letters}")
        if tokens.dim() != dims:
            raise ValueError(f"tokens: got shape {list(tokens.shape)}, expected {letters}")

    def reset_parameters(self) -> None:
        """Draw and fill every parameter anew, as the constructor does: after `to_empty`, say."""
        for module in self.modules():
            if module is not self and callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        self._initialize()

    def _initialize(self) -> None:
        """The first weights; called once everything is built."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            reset = getattr(module, "reset_gates", None)
            if callable(reset):
                reset()
