"""What is carried from token to token: recurrent states of constant size, and keys and values of attention layers.

Layers of a cache count the tokens that they have seen, as transformers' `generate` wants to know. A cache can be
copied (`snapshot`) and put back (`restore`), which transformers' `crop` cannot do for a recurrence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from statemix.hf.configuration import ATTENTION, StatemixConfig

Snapshot: TypeAlias = dict[str, Tensor]
"""Named tensors that own their storage, as `safetensors.torch.save_file` takes them."""


class StateLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """The state of one recurrent layer: tensors whose first dimension is the batch, and how many tokens it has seen."""

    is_sliding = False
    is_compileable = False
    supports_early_init = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.states: tuple[Tensor, ...] = ()
        self.tokens = 0

    def store(self, states: tuple[Tensor, ...], tokens: int) -> None:
        """The states after `tokens` more tokens."""
        self.states, self.tokens, self.is_initialized = states, self.tokens + tokens, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the first forward stores the state."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """TypeError: a recurrent layer has no keys and values."""
        raise TypeError(
            "cache: got keys and values for a recurrent layer, expected a state (StateLayer.store)"
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(tokens seen and new, 0), as an attention layer answers."""
        return self.tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen, padding included."""
        return self.tokens

    def get_max_length(self) -> int:
        """-1: there is no limit."""
        return -1

    def reset(self) -> None:
        """Back to the start of a text."""
        self.states, self.tokens, self.is_initialized = (), 0, False

    def offload(self) -> None:
        """Move the state to the CPU; the layer moves it back where it computes."""
        self.states = tuple(state.to("cpu", non_blocking=True) for state in self.states)

    def prefetch(self) -> None:
        """Nothing: a state is small, and is moved when it is read."""

    def crop(self, *args: Any) -> None:
        """NotImplementedError: a recurrence cannot be run backwards."""
        raise NotImplementedError(
            "crop: a recurrent state cannot drop tokens; take a snapshot() and restore() it"
        )

    def _map(self, function: Any) -> None:
        self.states = tuple(map(function, self.states))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Sequence i continues from sequence beam_idx[i]."""
        self._map(lambda state: state.index_select(0, beam_idx.to(state.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every sequence `repeats` times."""
        self._map(lambda state: state.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """The sequences that `indices` names."""
        self._map(lambda state: state[indices.to(state.device)])

    @property
    def batch_size(self) -> int:
        """Sequences; -1 before the first token."""
        return self.states[0].shape[0] if self.states else -1

    def tensors(self) -> dict[str, Tensor]:
        """The state by name, to be copied."""
        return {f"state{place}": state for place, state in enumerate(self.states)}

    def load(self, tensors: Mapping[str, Tensor], tokens: int) -> None:
        """The state that `tensors` gave, after `tokens` tokens."""
        self.reset()
        if tensors:
            self.store(tuple(tensors[f"state{place}"] for place in range(len(tensors))), tokens)


class AttentionLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one attention layer; they grow by a column a token."""

    def tensors(self) -> dict[str, Tensor]:
        """Keys and values by name, to be copied."""
        if self.keys is None or self.values is None or not self.get_seq_length():
            return {}
        return {"keys": self.keys, "values": self.values}

    def load(self, tensors: Mapping[str, Tensor], tokens: int) -> None:
        """The keys and values that `tensors` gave."""
        self.is_initialized, self.keys, self.values = False, None, None
        if tensors:
            self.update(tensors["keys"], tensors["values"])


class StatemixCache(Cache):  # type: ignore[no-untyped-call]
    """The cache of a Statemix model: `StateLayer`s of constant size, and keys and values where a layer is attention.

    Args:
        config: The model's configuration.

    Example:
        >>> config = StatemixConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2)
        >>> model, cache = StatemixForCausalLM(config).eval(), StatemixCache(config)
        >>> with torch.no_grad():
        ...     _ = model(torch.tensor([[1, 2, 3]]), cache=cache)
        ...     before = cache.snapshot()
        ...     first = model(torch.tensor([[4, 5]]), cache=cache).logits
        ...     cache.restore(before)
        ...     again = model(torch.tensor([[4, 5]]), cache=cache).logits
        >>> torch.equal(first, again), cache.get_seq_length(), cache.nbytes
        (True, 5, 64)
    """

    def __init__(self, config: StatemixConfig) -> None:
        kinds = [AttentionLayer if kind == ATTENTION else StateLayer for kind in config.layer_types or ()]
        super().__init__(layers=[kind() for kind in kinds])
        self.layers: list[Any]
        self.replay: Any = None
        """What runs the next token instead of the model (see `statemix.hf.decoding`)."""

    @property
    def recurrent(self) -> bool:
        """Whether every layer is recurrent, so that the cache never grows."""
        return all(isinstance(layer, StateLayer) for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.tensors().values())

    def batch_sizes(self) -> set[int]:
        """The batch sizes of its layers that have seen tokens."""
        return {tensor.shape[0] for layer in self.layers for tensor in layer.tensors().values()}

    def snapshot(self) -> Snapshot:
        """A copy of everything: "tokens", and "layers.I.NAME" for the tensors of layer I.

        It stays as it is while the cache goes on, can be restored any number of times and into any cache of the same
        configuration (the cache of a common prefix, say), and saved with `safetensors.torch.save_file`.
        """
        copies = {"tokens": torch.tensor(self.get_seq_length())}
        for place, layer in enumerate(self.layers):
            for name, tensor in layer.tensors().items():
                copies[f"layers.{place}.{name}"] = tensor.detach().clone(
                    memory_format=torch.contiguous_format
                )
        return copies

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Put a snapshot back; the snapshot is copied and stays usable.

        Raises:
            ValueError: It is the snapshot of a model with other layers.
        """
        parts: list[dict[str, Tensor]] = [{} for _ in self.layers]
        for key, tensor in snapshot.items():
            if key != "tokens":
                self._part(parts, key)[key.rpartition(".")[2]] = tensor.clone()
        tokens = int(snapshot["tokens"])
        self._check_parts(parts, tokens)
        for layer, part in zip(self.layers, parts, strict=True):
            layer.load(part, tokens)

    def _part(self, parts: list[dict[str, Tensor]], key: str) -> dict[str, Tensor]:
        word, _, rest = key.partition(".")
        place, _, name = rest.partition(".")
        if word != "layers" or not place.isdigit() or int(place) >= len(parts):
            raise ValueError(f"snapshot: got {key!r}, expected tensors of layers 0 to {len(parts) - 1}")
        wanted = ("keys", "values") if isinstance(self.layers[int(place)], AttentionLayer) else ("state",)
        if not name.startswith(wanted):
            raise ValueError(
                f"snapshot: got {key!r}, expected {' and '.join(wanted)} there (another layer type)"
            )
        return parts[int(place)]

    @staticmethod
    def _check_parts(parts: list[dict[str, Tensor]], tokens: int) -> None:
        lacking = [place for place, part in enumerate(parts) if not part]
        if tokens and lacking:
            raise ValueError(f"snapshot: nothing for layers {lacking}, expected tensors of every layer")
