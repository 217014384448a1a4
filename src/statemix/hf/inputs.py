"""What a forward is given, made into what the layers take: masks, bounds of documents, positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache

from statemix.hf.cache import StatemixCache
from statemix.hf.configuration import ATTENTION, RECURRENT, StatemixConfig


class Inputs(NamedTuple):
    """What all layers share in one forward."""

    mask: Tensor | None
    """bool [B, T], True where a token is real; None where all are."""

    cu_seqlens: Tensor | None
    """Bounds of documents in the rows laid end to end, 0 … B·T; None where every row is one sequence."""

    attention_mask: Tensor | None
    """The mask of seen and new tokens, as attention takes it."""

    position_ids: Tensor | None
    """[B, T] or [1, T]."""

    others: dict[str, Any]
    """What attention functions take besides."""

    causal_mask: Any = None
    """Which keys each query sees, as the attention function takes it."""

    position_embeddings: Any = None
    """Cosines and sines of the rotary embedding."""


def check_cache(cache: Cache | None, config: StatemixConfig, batch_size: int) -> None:
    """TypeError or ValueError unless a cache fits the model and the batch."""
    if cache is None:
        return
    if not isinstance(cache, StatemixCache):
        raise TypeError(
            f"cache: got {type(cache).__name__}, expected a StatemixCache (StatemixCache(model.config))"
        )
    if len(cache.layers) != config.num_hidden_layers:
        raise ValueError(f"cache: got {len(cache.layers)} layers, expected {config.num_hidden_layers}")
    if others := cache.batch_sizes() - {batch_size}:
        raise ValueError(
            f"cache: got a batch of {others.pop()}, expected {batch_size} sequences as in the input"
        )


def prepare(
    hidden_states: Tensor,
    attention_mask: Tensor | Mapping[str, Tensor | None] | None,
    position_ids: Tensor | None,
    cache: StatemixCache | None,
    others: Mapping[str, Any],
) -> Inputs:
    """The shared inputs of one forward on embedded tokens [B, T, D]."""
    seen = 0 if cache is None else cache.get_seq_length()
    if isinstance(attention_mask, Mapping):
        wide, narrow = attention_mask[ATTENTION], attention_mask[RECURRENT]
    else:
        wide = narrow = attention_mask
    cu_seqlens = _documents(hidden_states, wide, position_ids, seen, others)
    if cu_seqlens is not None and cache is not None:
        raise ValueError(
            "cache: got one beside packed documents, expected None (states of documents have no rows)"
        )
    grows = cache is not None and not cache.recurrent
    mask = None if cu_seqlens is not None else _new_tokens(narrow, hidden_states, seen, grows)
    if position_ids is None:
        position_ids = _positions(hidden_states, wide, cu_seqlens, seen)
    if cu_seqlens is not None:
        wide = None
    return Inputs(mask, cu_seqlens, wide, position_ids, dict(others))


def _documents(
    hidden_states: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    seen: int,
    others: Mapping[str, Any],
) -> Tensor | None:
    """Bounds of documents: those given, or where positions start again; None where every row is one document."""
    given = others.get("cu_seq_lens_q")
    if given is not None:
        if seen:
            raise ValueError(
                f"cu_seq_lens_q: got bounds behind {seen} cached tokens, expected an empty start"
            )
        return given  # type: ignore[no-any-return]
    if position_ids is None or mask is not None or seen or hidden_states.shape[1] < 2:
        return None
    rows = position_ids.expand(hidden_states.shape[0], -1)
    starts = F.pad(rows.diff(dim=1) != 1, (1, 0), value=True).flatten()
    places = starts.nonzero().flatten()
    if len(places) == hidden_states.shape[0]:
        return None
    return F.pad(places, (0, 1), value=starts.numel())


def _new_tokens(mask: Tensor | None, hidden_states: Tensor, seen: int, grows: bool) -> Tensor | None:
    """The mask of the new tokens, bool [B, T]; None where all are real. grows: whether a cache keeps all tokens."""
    if mask is None:
        return None
    batch, length = hidden_states.shape[:2]
    lengths = (seen + length,) if grows else (length, seen + length)
    if mask.dim() != 2 or mask.shape[0] != batch or mask.shape[1] not in lengths:
        raise ValueError(
            f"attention_mask: got shape {list(mask.shape)}, expected [{batch}, {seen + length}]: one number for every "
            "token, those in the cache included"
        )
    real = mask[:, -length:] != 0 if length else mask[:, :0] != 0
    return None if not torch.compiler.is_compiling() and bool(real.all()) else real.to(hidden_states.device)


def _positions(hidden_states: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, seen: int) -> Tensor:
    """Positions of the new tokens, [B, T] or [1, T]: from 0 at the first real token of each document."""
    batch, length = hidden_states.shape[:2]
    places = torch.arange(seen, seen + length, device=hidden_states.device)[None]
    if cu_seqlens is not None:
        flat = torch.arange(batch * length, device=hidden_states.device)
        document = torch.searchsorted(cu_seqlens.to(flat), flat, right=True) - 1
        return (flat - cu_seqlens.to(flat)[document]).view(batch, length)
    if mask is None or mask.dim() != 2 or mask.shape[1] != seen + length:
        return places
    return (mask.long().cumsum(1) - 1).clamp(min=0)[:, seen:]
