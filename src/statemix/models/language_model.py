"""The next-token model: embedding, blocks, norm, head. From top to bottom, what it is and how it starts."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from statemix.models.embedding import Embedding
from statemix.nn.block import NORMS, Block, Stack, SwiGLU, check_norm, check_unpacked, reset
from statemix.nn.mixer import check_size
from statemix.nn.padding import LeftPadding, State, run_padded

INITIAL_DEVIATION = 0.02
BLOCK_OPTIONS = tuple(
    name
    for name in inspect.signature(Block).parameters
    if name not in ("dim", "mixer", "norm", "device", "dtype")
)
"""What `block` may hold."""

MixerFactory = Callable[[int], nn.Module]


class Backbone(nn.Module):
    """Base of the models: an embedding, `depth` blocks, and N(0, 0.02²) for every linear and embedding weight.

    vocab_size: V. dim: D. mixer: a function dim -> mixer, or one of them a layer. depth: layers; by default as many as
    mixers, 2 for a single function. norm: a key of `NORMS`. block: options of `Block`; a SwiGLU is on by default.
    Errors: ValueError or TypeError naming the argument.
    Source: arXiv 2602.12021, synthetic tasks.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        mixer: MixerFactory | Sequence[MixerFactory],
        *,
        depth: int | None = None,
        norm: str = "layer",
        block: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size, self.dim = whole_number("vocab_size", vocab_size), whole_number("dim", dim)
        mixers = _one_per_layer(mixer, depth)
        options = {"mlp": True, **_check_options({} if block is None else block), "norm": check_norm(norm)}
        self.embedding = Embedding(self.vocab_size, self.dim)
        self.layers = Stack(*(Block(self.dim, build(self.dim), **options) for build in mixers))

    def initial_states(self, batch_size: int) -> list[State]:
        """The state of every layer before the first token of `batch_size` sequences."""
        return self.layers.initial_state(batch_size)

    def reset_parameters(self) -> None:
        """Draw and fill every parameter anew, as the constructor does: after `to_empty`, say."""
        for child in self.children():
            reset(child)
        self._initialize()

    def _initialize(self) -> None:
        """The first weights; called once everything is built."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if callable(reset_gates := getattr(module, "reset_gates", None)):
                reset_gates()


class LanguageModel(Backbone):
    """Next-token model: embedding, blocks of a mixer and a SwiGLU, norm, head. No position embedding.

    Args:
        vocab_size: V.
        dim: Width of the residual stream.
        mixer: A function dim -> mixer (see `statemix.nn.mixer`), called once a layer; or a sequence of such functions,
            one a layer, for hybrids.
        depth: Layers; by default as many as mixers, 2 for a single function.
        norm: A key of `statemix.models.NORMS`, "layer" or "rms".
        tie_embeddings: Whether the head's weight is the embedding's.
        head_bias: Whether the head has a bias.
        block: Options of `statemix.nn.Block` (conv_size, output_gate, mlp, mlp_width, dropout); mlp is on by default.
        scaled_init: Whether the SwiGLUs' output weights start divided by √(2 · depth), as in the paper's language
            models, so that the residual stream starts as wide at every depth.

    Raises:
        TypeError: The mixer is no function, or `block` no mapping.
        ValueError: A size is no whole number of at least 1, a name is unknown, or there are not `depth` mixers.

    Example:
        >>> model = LanguageModel(10, 16, lambda dim: BDLRU(dim, block_size=4))
        >>> logits, states = model(torch.tensor([[1, 2, 3]]))
        >>> next_logits, states = model.step(logits[:, -1].argmax(-1), states)
        >>> logits.shape, next_logits.shape
        (torch.Size([1, 3, 10]), torch.Size([1, 10]))

    Source: arXiv 2602.12021, the language-model backbone.
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        mixer: MixerFactory | Sequence[MixerFactory],
        *,
        depth: int | None = None,
        norm: str = "layer",
        tie_embeddings: bool = False,
        head_bias: bool = True,
        block: Mapping[str, Any] | None = None,
        scaled_init: bool = False,
    ) -> None:
        super().__init__(vocab_size, dim, mixer, depth=depth, norm=norm, block=block)
        self.norm = NORMS[norm](self.dim)
        self.head = nn.Linear(self.dim, self.vocab_size, bias=head_bias)
        if tie_embeddings:
            self.head.weight = self.embedding.weight
        self.scaled_init = scaled_init
        self._initialize()

    def forward(
        self,
        tokens: Tensor,
        states: Sequence[State] | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, list[State]]:
        """tokens [B, T], states (one a layer) or None -> (logits [B, T, V], new states).

        Args:
            tokens: int64 or int32, from 0 to V - 1 where they are real.
            states: As a call before returned them, or None (`initial_states`).
            cu_seqlens: Bounds 0 … T [S+1] of S sequences packed into one row (B = 1).
            mask: bool [B, T], True where a token is real: one run of True in each row. Logits at real places and the
                states are those of each row's sequence alone (see `statemix.nn.Block.forward`); logits at padding are
                the head's of zeros.
        """
        x, after = self.hidden(tokens, states, cu_seqlens, mask)  # [B, T, D]
        return self.head(x), after

    def hidden(
        self,
        tokens: Tensor,
        states: Sequence[State] | None = None,
        cu_seqlens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, list[State]]:
        """As `forward`, without the head: normalised x [B, T, dim], zero at padding, and the new states.

        For losses that take the head's product in chunks.
        """
        check_tokens(tokens, 2, "[B, T]")
        if mask is None:
            return self._hidden(tokens, states, cu_seqlens, None)
        check_unpacked(cu_seqlens)
        return run_padded(self._hidden, tokens, states, mask, keeps_zero=self.layers.keeps_zero)

    def step(self, tokens: Tensor, states: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """One token of each sequence: tokens [B], states or None -> (logits [B, V], new states). Equal to
        `forward` on T = 1."""
        check_tokens(tokens, 1, "[B]")
        x, after = self.layers.step(self.embedding(tokens), states)  # [B, D]
        return self.head(self.norm(x)), after

    def _hidden(
        self,
        tokens: Tensor,
        states: Sequence[State] | None,
        cu_seqlens: Tensor | None,
        mask: LeftPadding | None,
    ) -> tuple[Tensor, list[State]]:
        x, after = self.layers(self.embedding(tokens), states, cu_seqlens, mask)  # [B, T, D]
        return self.norm(x), after

    def _initialize(self) -> None:
        super()._initialize()
        if self.scaled_init:
            scale = 1 / math.sqrt(2 * len(self.layers))
            with torch.no_grad():
                for mlp in (layer.mlp for layer in self.layers):
                    if isinstance(mlp, SwiGLU):
                        mlp.down.weight.mul_(scale)


def whole_number(name: str, size: int) -> int:
    """A whole number of at least 1, or a ValueError naming it."""
    try:
        return check_size(name, size)
    except TypeError as error:
        raise ValueError(str(error)) from None


def check_tokens(tokens: Tensor, dims: int, letters: str) -> None:
    """An integer tensor of a number of dimensions."""
    if not isinstance(tokens, Tensor) or tokens.dtype not in (torch.int64, torch.int32):
        came = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens: got {came}, expected an integer tensor {letters}")
    if tokens.dim() != dims:
        raise ValueError(f"tokens: got shape {list(tokens.shape)}, expected {letters}")


def _one_per_layer(mixer: MixerFactory | Sequence[MixerFactory], depth: int | None) -> Sequence[MixerFactory]:
    if callable(mixer):
        return [mixer] * whole_number("depth", 2 if depth is None else depth)
    if isinstance(mixer, str) or not isinstance(mixer, Sequence) or not all(map(callable, mixer)):
        raise TypeError(
            f"mixer: got {type(mixer).__name__}, expected a function dim -> module, or one of them a layer"
        )
    if not mixer or (depth is not None and len(mixer) != whole_number("depth", depth)):
        raise ValueError(
            f"mixer: got {len(mixer)} functions, expected one for each of depth = {depth} layers"
        )
    return mixer


def _check_options(block: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(block, Mapping):
        raise TypeError(f"block: got {type(block).__name__}, expected a mapping of options of Block")
    for name in block:
        if name not in BLOCK_OPTIONS:
            raise ValueError(f"block.{name}: unknown, expected one of {', '.join(BLOCK_OPTIONS)}")
    return block
