"""Next-token model: what every task but compression is solved with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from statemix.models.backbone import NORMS, Backbone


class LanguageModel(Backbone):
    """Tokens [B, T] -> logits [B, T, V]: embedding, layers, norm, untied head. No position embedding.

    Arguments and errors as `Backbone`. Source: arXiv 2602.12021, the language-model backbone.
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
