"""Next-token model: the backbone of every task but compression."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from statemix.models.backbone import NORMS, Backbone


class LanguageModel(Backbone):
    """Next-token model: embedding, layers of a mixer and a SwiGLU, norm, untied head. No position embedding.

    Args:
        vocab_size: V.
        dim: Width of the residual stream.
        mixer: A function dim -> mixer (see `statemix.nn.mixer`), called once a layer.
        depth: Layers.
        norm: A key of `statemix.models.NORMS`, "layer" or "rms".

    Raises:
        TypeError: The mixer is no function.
        ValueError: A size is no whole number of at least 1, or the norm is unknown.

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
        mixer: Callable[[int], nn.Module],
        *,
        depth: int = 2,
        norm: str = "layer",
    ) -> None:
        super().__init__(vocab_size, dim, mixer, depth=depth, norm=norm)
        self.norm = NORMS[norm](self.dim)
        self.head = nn.Linear(self.dim, self.vocab_size)
        self._initialize()

    def forward(self, tokens: Tensor, states: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """tokens [B, T], states (one [B, N, m] per layer) or None -> (logits [B, T, V], new states)."""
        self._check_tokens(tokens, 2, "[B, T]")
        x, after = self._run(self.embedding(tokens), states)  # [B, T, D]
        return self.head(self.norm(x)), after

    def step(self, tokens: Tensor, states: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """One token of each sequence: tokens [B], states or None (zeros) -> (logits [B, V], new states). Equal to
        `forward` on T = 1."""
        self._check_tokens(tokens, 1, "[B]")
        x, after = self.embedding(tokens), []  # [B, D]
        for layer, state in zip(self.layers, self._check_states(states), strict=True):
            x, state = layer.step(x, state)  # type: ignore[operator]
            after.append(state)
        return self.head(self.norm(x)), after
