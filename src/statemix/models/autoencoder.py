"""Sequence through one vector: only the last position's encoding reaches the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from statemix.models.language_model import Backbone, MixerFactory, check_tokens, whole_number
from statemix.nn.block import NORMS


class Autoencoder(Backbone):
    """Tokens [B, T] -> logits [B, T, V] of the same tokens, decoded from the last position's encoding alone.

    The encoding plus the embedding of every position goes through norm, linear, GELU, norm, linear, GELU, norm
    and the head; the same position embedding is added to the tokens' on the way in.

    Args:
        vocab_size: V.
        dim: Width of the residual stream.
        mixer: A function dim -> mixer (see `statemix.nn.mixer`), called once a layer.
        max_length: The longest T.
        depth: Layers; by default as many as mixers, 2 for a single function.
        norm: A key of `statemix.models.NORMS`, "layer" or "rms".
        block: Options of `statemix.nn.Block`; mlp is on by default.

    Raises:
        TypeError: The mixer is no function.
        ValueError: A size is no whole number of at least 1, or the norm is unknown.

    Example:
        >>> model = Autoencoder(10, 16, lambda dim: BDLRU(dim, block_size=4), max_length=8)
        >>> logits, _ = model(torch.tensor([[1, 2, 3]]))
        >>> logits.shape
        torch.Size([1, 3, 10])

    Source: arXiv 2602.12021, the autoencoder backbone (compression).
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        mixer: MixerFactory | Sequence[MixerFactory],
        *,
        max_length: int,
        depth: int | None = None,
        norm: str = "layer",
        block: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vocab_size, dim, mixer, depth=depth, norm=norm, block=block)
        self.max_length = whole_number("max_length", max_length)
        self.positions = nn.Embedding(self.max_length, self.dim)
        half = [(NORMS[norm](self.dim), nn.Linear(self.dim, self.dim), nn.GELU()) for _ in range(2)]
        self.decoder = nn.Sequential(*half[0], *half[1])
        self.norm = NORMS[norm](self.dim)
        self.head = nn.Linear(self.dim, self.vocab_size)
        self._initialize()

    def forward(self, tokens: Tensor, states: None = None) -> tuple[Tensor, None]:
        """tokens [B, T] with T <= max_length -> (logits [B, T, V], None): nothing can be carried on."""
        check_tokens(tokens, 2, "[B, T]")
        if states is not None:
            raise ValueError("states: got states, expected None (an autoencoder carries nothing on)")
        length = tokens.shape[1]
        if not 1 <= length <= self.max_length:
            raise ValueError(f"tokens: got T = {length}, expected 1 to max_length = {self.max_length}")
        places = self.positions.weight[:length]  # [T, D]
        encoded, _ = self.layers(self.embedding(tokens) + places)  # [B, T, D]
        return self.head(self.norm(self.decoder(encoded[:, -1:] + places))), None
