"""The configuration of the Hugging Face models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from statemix.nn.mixer import check_size
from statemix.nn.registry import MIXERS, check_mixer

ATTENTION = "full_attention"
RECURRENT = "linear_attention"
"""What transformers calls the two kinds of layer."""

HEAD_WIDTH = 64
"""Width of an attention head where none is given."""


class StatemixConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Configuration of `StatemixModel` and `StatemixForCausalLM`.

    Args:
        vocab_size: V, tokens of the vocabulary.
        hidden_size: D, width of the residual stream.
        num_hidden_layers: Layers.
        mixer: The recurrent mixer, a key of `statemix.nn.MIXERS`.
        mixer_arguments: What its constructor takes. With several mixers a mapping from each name to its arguments.
        layer_types: A pattern, repeated to `num_hidden_layers`: "linear_attention" stands for `mixer`, any other key of
            `MIXERS` for that mixer, "full_attention" for softmax attention with rotary positions. None: `mixer`
            everywhere. Afterwards it holds "linear_attention" and "full_attention" only, one per layer.
        mixers: Derived: the mixer of every layer, None for attention.
        norm: "rms" or "layer".
        conv_size: Taps of the short convolution before every recurrent mixer; None leaves it out.
        output_gate: Whether recurrent mixers have an output gate.
        mlp: Whether every layer has a SwiGLU.
        intermediate_size: Width inside the SwiGLU; None: 8/3 D, rounded up to a multiple of 16.
        dropout: Probability of dropping a number on each branch in training.
        num_attention_heads: Heads of attention layers; None: D / 64.
        num_key_value_heads: Heads of keys and values; None: as many.
        head_dim: Width of a head; None: D / heads.
        attention_bias: Whether attention projections have a bias.
        attention_dropout: Dropout on attention weights in training.
        rope_parameters: As transformers takes them; None: theta 10 000.
        max_position_embeddings: Positions that the rotary embedding is made for. The recurrence has no limit.
        head_bias: Whether the head has a bias.
        tie_word_embeddings: Whether the head's weight is the embedding's.
        initializer_range: Deviation of the first weights.
        scaled_init: Whether the SwiGLUs' output weights start divided by √(2 · layers), as in the paper's models.
        use_cache: Whether a forward returns a cache unless it is told.
        pad_token_id: Padding, if any.
        bos_token_id: Start of a text, if any.
        eos_token_id: End of a text, if any.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A mixer, layer type or norm is unknown, a size is below 1, or arguments name another mixer.

    Example:
        >>> config = StatemixConfig(
        ...     vocab_size=100, hidden_size=64, num_hidden_layers=4, layer_types=["bdlru", "full_attention"]
        ... )
        >>> config.mixers
        ['bdlru', None, 'bdlru', None]
        >>> config.layer_types[:2]
        ['linear_attention', 'full_attention']
    """

    model_type = "statemix"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "cache"]

    vocab_size: int = 50280
    hidden_size: int = 768
    num_hidden_layers: int = 12
    mixer: str = "bdlru"
    mixer_arguments: dict[str, Any] | None = None
    layer_types: list[str] | None = None
    mixers: list[str | None] | None = None
    norm: str = "rms"
    conv_size: int | None = None
    output_gate: bool = False
    mlp: bool = True
    intermediate_size: int | None = None
    dropout: float = 0.0
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    rope_parameters: dict[str, Any] | None = None
    max_position_embeddings: int = 2048
    head_bias: bool = False
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    scaled_init: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
            setattr(self, name, check_size(name, getattr(self, name)))
        if self.norm not in ("rms", "layer"):
            raise ValueError(f"norm: got {self.norm!r}, expected 'rms' or 'layer'")
        self._resolve_heads()
        self._resolve_layers()
        super().__post_init__(**kwargs)

    def arguments_of(self, mixer: str) -> dict[str, Any]:
        """The arguments of one mixer's constructor."""
        given = dict(self.mixer_arguments or {})
        return dict(given[mixer]) if self._by_name(given) else given

    def _resolve_heads(self) -> None:
        if self.num_attention_heads is None:
            width = self.head_dim or HEAD_WIDTH
            self.num_attention_heads = max(1, self.hidden_size // width)
        heads = self.num_attention_heads = check_size("num_attention_heads", self.num_attention_heads)
        if self.num_key_value_heads is None:
            self.num_key_value_heads = heads
        if heads % check_size("num_key_value_heads", self.num_key_value_heads):
            raise ValueError(
                f"num_key_value_heads: got {self.num_key_value_heads}, expected a divisor of {heads} (attention heads)"
            )
        if self.head_dim is None:
            self.head_dim = self.hidden_size // heads
        if self.head_dim < 2 or self.head_dim % 2:
            raise ValueError(
                f"head_dim: got {self.head_dim}, expected an even number (rotary positions turn pairs)"
            )

    def _resolve_layers(self) -> None:
        """`layer_types` in transformers' words and `mixers`, one entry per layer."""
        check_mixer(self.mixer)
        if self.mixers is None:
            pattern = [self.mixer] if self.layer_types is None else list(self.layer_types)
            names = list(_repeated(map(self._mixer_of, pattern), self.num_hidden_layers, "layer_types"))
        else:
            names = [name if name is None else check_mixer(name) for name in self.mixers]
            if len(names) != self.num_hidden_layers:
                raise ValueError(
                    f"mixers: got {len(names)}, expected one per layer (num_hidden_layers = {self.num_hidden_layers})"
                )
        self.mixers = names
        self.layer_types = [ATTENTION if name is None else RECURRENT for name in names]
        self._check_arguments({name for name in names if name is not None})

    def _mixer_of(self, layer_type: str) -> str | None:
        if layer_type == ATTENTION:
            return None
        if layer_type == RECURRENT:
            return self.mixer
        if layer_type in MIXERS:
            return layer_type
        known = (ATTENTION, RECURRENT, *MIXERS)
        raise ValueError(f"layer_types: got {layer_type!r}, expected one of {', '.join(map(repr, known))}")

    def _check_arguments(self, used: set[str]) -> None:
        if self.mixer_arguments is None:
            self.mixer_arguments = {"block_size": 4} if used <= {"bdlru"} else {}
        if self._by_name(self.mixer_arguments):
            if missing := used - self.mixer_arguments.keys():
                raise ValueError(
                    f"mixer_arguments: nothing for {sorted(missing)}, expected an entry for every mixer"
                )
        elif len(used) > 1:
            raise ValueError(
                f"mixer_arguments: got {self.mixer_arguments!r}, expected a mapping from each of {sorted(used)} to its "
                "arguments"
            )

    @staticmethod
    def _by_name(arguments: Mapping[str, Any]) -> bool:
        """Whether arguments are given for each mixer by name."""
        return bool(arguments) and all(
            isinstance(value, Mapping) and name in MIXERS for name, value in arguments.items()
        )


def _repeated(pattern: Iterable[str | None], length: int, name: str) -> list[str | None]:
    names = list(pattern)
    if not names:
        raise ValueError(f"{name}: got an empty pattern, expected at least one layer type")
    return [names[place % len(names)] for place in range(length)]
