"""One way to run both kinds of language model: `LanguageModel` and `statemix.hf.StatemixForCausalLM`."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from statemix.models import LanguageModel


class Stateful(Protocol):
    """A language model that goes on from a state. vocab_size: V. device: where it computes."""

    vocab_size: int
    device: torch.device

    def hidden(self, tokens: Tensor, state: Any, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Any]:
        """tokens [B, T], a state or None (empty) -> (what the head reads [B, T, D], the state behind them)."""

    def logits(self, x: Tensor) -> Tensor:
        """What `hidden` gave, [..., D] -> [..., V]."""

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One token of each sequence: tokens [B], state -> (logits [B, V], the state behind them)."""

    def replaying(self, state: Any) -> AbstractContextManager[None]:
        """A context in which steps from `state` on are replayed as a captured one, where the model can."""


class _Plain:
    """A `LanguageModel`; its state is a list, one a layer."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.vocab_size = model, model.vocab_size
        self.device = model.embedding.weight.device

    def hidden(self, tokens: Tensor, state: Any, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Any]:
        return self.model.hidden(tokens, state, cu_seqlens)

    def logits(self, x: Tensor) -> Tensor:
        return self.model.head(x)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model.step(tokens, state)

    def replaying(self, state: Any) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class _HuggingFace:
    """A `StatemixForCausalLM`; its state is a cache, which every call changes."""

    def __init__(self, model: Any) -> None:
        self.model, self.vocab_size, self.device = model, int(model.config.vocab_size), model.device
        self._decoder, self._head = model.get_decoder(), model.get_output_embeddings()
        parameters = inspect.signature(type(model).forward).parameters
        self._cache = (
            "cache" if "cache" in parameters else "past_key_values"
        )  # its name from 5.24 on, and before

    def hidden(self, tokens: Tensor, state: Any, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Any]:
        packed = {} if cu_seqlens is None else {"cu_seq_lens_q": cu_seqlens}
        out = self._decoder(input_ids=tokens, use_cache=not packed, **{self._cache: state}, **packed)
        return out.last_hidden_state, out.get("cache", out.get("past_key_values"))

    def logits(self, x: Tensor) -> Tensor:
        return self._head(x)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model(input_ids=tokens[:, None], **{self._cache: state}).logits[:, 0], state

    @contextlib.contextmanager
    def replaying(self, state: Any) -> Iterator[None]:
        from statemix.hf.decoding import Decoding

        Decoding(self.model).attach(state)
        try:
            yield
        finally:
            if state.replay is not None:
                state.replay.release(state)
                state.replay = None


def stateful(model: nn.Module) -> Stateful:
    """`model` as a `Stateful`. TypeError for any that is neither of the two kinds."""
    if isinstance(model, LanguageModel):
        return _Plain(model)
    if getattr(getattr(model, "config", None), "model_type", None) == "statemix" and hasattr(
        model, "lm_head"
    ):
        return _HuggingFace(model)
    raise TypeError(f"model: got {type(model).__name__}, expected a LanguageModel or a StatemixForCausalLM")
