"""The Hugging Face models, from top to bottom: layers, the stack of them, and the stack with a head.

Letters: B batch, T new tokens, D hidden size, V vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from statemix.hf import decoding
from statemix.hf.cache import StatemixCache
from statemix.hf.configuration import ATTENTION, RECURRENT, StatemixConfig
from statemix.hf.inputs import Inputs, check_cache, prepare
from statemix.nn.block import NORMS, Block, BlockState, SwiGLU
from statemix.nn.convolution import ShortConvolution
from statemix.nn.registry import build_mixer

CACHE = "cache" if "cache" in {one.name for one in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What transformers calls a cache: "cache" from 5.24 on, "past_key_values" before."""


def _named(cache: StatemixCache | None) -> dict[str, Any]:
    """The cache as an argument or output of transformers."""
    return {CACHE: cache}


class StatemixRecurrentLayer(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """A `statemix.nn.Block` whose state lies in the cache."""

    def __init__(self, config: StatemixConfig, layer_idx: int, mixer: str) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.block = Block(
            config.hidden_size,
            build_mixer(mixer, config.hidden_size, **config.arguments_of(mixer)),
            norm=config.norm,
            conv_size=config.conv_size,
            output_gate=config.output_gate,
            mlp=config.mlp,
            mlp_width=config.intermediate_size if config.mlp else None,
            dropout=config.dropout,
        )

    def forward(self, hidden_states: Tensor, inputs: Inputs, cache: StatemixCache | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; the state in the cache, if there is one, goes T tokens on."""
        if inputs.cu_seqlens is not None:  # every document of every row is a sequence in one row
            x, _ = self.block(hidden_states.flatten(0, 1)[None], None, inputs.cu_seqlens)
            return x.view_as(hidden_states)
        own = None if cache is None else cache.layers[self.layer_idx]
        states = () if own is None else tuple(state.to(hidden_states.device) for state in own.states)
        if hidden_states.shape[1] == 1 and inputs.mask is None:
            x, states = self.step(hidden_states[:, 0], states)
            x = x[:, None]
        else:
            x, state = self.block(hidden_states, self._joined(states), mask=inputs.mask)
            states = _parted(state)
        if own is not None:
            own.store(states, hidden_states.shape[1])
        return x

    def step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One token of each sequence: x [B, D] and the tensors of the state, () for none -> the same behind it."""
        x, state = self.block.step(x, self._joined(states))
        return x, _parted(state)

    def _joined(self, states: tuple[Tensor, ...]) -> Any:
        """The state as the block takes it."""
        if not states:
            return None
        return BlockState(*states) if self.block.convolution is not None else states[0]


def _parted(state: Any) -> tuple[Tensor, ...]:
    """The tensors of a block's state."""
    return tuple(state) if isinstance(state, BlockState) else (state,)


class StatemixAttentionLayer(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    """x + attention(norm(x)), then x + SwiGLU(norm(x)); attention and rotary positions are transformers' own."""

    def __init__(self, config: StatemixConfig, layer_idx: int) -> None:
        super().__init__()
        norm = NORMS[config.norm]
        self.dropout = config.dropout
        self.mixer_norm = norm(config.hidden_size)
        self.mixer = LlamaAttention(config, layer_idx)  # type: ignore[arg-type]
        self.mlp_norm = norm(config.hidden_size) if config.mlp else None
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size) if config.mlp else None

    def forward(self, hidden_states: Tensor, inputs: Inputs, cache: StatemixCache | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]; keys and values of the T tokens go into the cache, if there is one."""
        y, _ = self.mixer(
            self.mixer_norm(hidden_states),
            position_embeddings=inputs.position_embeddings,
            attention_mask=inputs.causal_mask,
            **_named(cache),
            **inputs.others,
        )
        hidden_states = hidden_states + F.dropout(y, self.dropout, self.training)
        if self.mlp is None or self.mlp_norm is None:
            return hidden_states
        y = self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + F.dropout(y, self.dropout, self.training)


class StatemixPreTrainedModel(PreTrainedModel):
    """What both models have in common: how they are loaded, spread over devices and started."""

    config: StatemixConfig
    config_class = StatemixConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["StatemixRecurrentLayer", "StatemixAttentionLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["cache", "past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": [StatemixRecurrentLayer, StatemixAttentionLayer],
        "attentions": LlamaAttention,
    }
    _is_stateful = True

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """N(0, `initializer_range`²) for linear and embedding weights; gates and convolutions as they start themselves.

        What a checkpoint has brought stays as it is.
        """
        brought = {id(p) for p in self.parameters() if getattr(p, "_is_hf_initialized", False)}
        super().initialize_weights()
        for module in self.modules():
            parameters = list(module.parameters())
            start = self._start_of(module)
            if start is None or all(id(parameter) in brought for parameter in parameters):
                continue
            kept = [(parameter, parameter.clone()) for parameter in parameters if id(parameter) in brought]
            start()
            for parameter, value in kept:
                parameter.copy_(value)
        for parameter in self.parameters():
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]

    def _start_of(self, module: nn.Module) -> Callable[[], object] | None:
        """What sets a module's first weights beside the normal ones, if anything does."""
        if isinstance(module, ShortConvolution):
            return module.reset_parameters
        if isinstance(module, SwiGLU) and self.config.scaled_init:
            return partial(module.down.weight.mul_, (2 * self.config.num_hidden_layers) ** -0.5)
        return getattr(module, "reset_gates", None)


class StatemixModel(StatemixPreTrainedModel):
    """The stack without a head: tokens [B, T] -> hidden states [B, T, D] behind the final norm.

    Args:
        config: A `StatemixConfig`.

    Example:
        >>> model = StatemixModel(StatemixConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2))
        >>> model(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: StatemixConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            StatemixAttentionLayer(config, place)
            if mixer is None
            else StatemixRecurrentLayer(config, place, mixer)
            for place, mixer in enumerate(config.mixers or ())
        )
        self.norm = NORMS[config.norm](config.hidden_size)
        attention = ATTENTION in (config.layer_types or ())
        self.rotary_emb = LlamaRotaryEmbedding(config) if attention else None  # type: ignore[arg-type]
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | Mapping[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: StatemixCache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        past_key_values: StatemixCache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The hidden states of new tokens.

        Args:
            input_ids: Tokens [B, T].
            attention_mask: [B, T], or [B, tokens seen + T] with a cache: 1 where a token is real, in one run a row.
                A row gives what its tokens give alone; hidden states of recurrent layers have the same bits on the CPU.
            position_ids: [B, T]. Without a mask and tokens seen before, a document begins wherever they do not go up
                by one, as transformers' `DataCollatorWithFlattening` makes them; documents do not see one another.
            cache: A `StatemixCache`; the new tokens follow on its own and it is changed.
            inputs_embeds: [B, T, D] in place of `input_ids`.
            use_cache: Whether to return a cache; by default what the configuration says.
            past_key_values: The older name of `cache`.
            **kwargs: `cu_seq_lens_q`, the bounds [S+1] of documents packed into one row, and what attention takes.

        Raises:
            TypeError: The cache is none of Statemix.
            ValueError: The cache holds another batch size or depth, the mask has a gap, or documents are packed
                behind a cache.
        """
        cache = cache if past_key_values is None else past_key_values
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids, inputs_embeds: expected one of them")
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        check_cache(cache, self.config, hidden_states.shape[0])
        if cache is not None and self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            raise ValueError(
                "cache: got one in training with gradient checkpointing, expected None (layers run twice)"
            )
        inputs = prepare(hidden_states, attention_mask, position_ids, cache, kwargs)
        if use_cache and cache is None and inputs.cu_seqlens is None:
            cache = StatemixCache(self.config)
        if self.rotary_emb is not None:
            inputs = self._with_attention(hidden_states, inputs, cache)
        for layer in self.layers:
            hidden_states = layer(hidden_states, inputs, cache=cache)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), **_named(cache))

    def _with_attention(self, hidden_states: Tensor, inputs: Inputs, cache: StatemixCache | None) -> Inputs:
        """The inputs with what attention layers need beside them."""
        assert self.rotary_emb is not None and inputs.position_ids is not None
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=inputs.attention_mask,
            position_ids=inputs.position_ids,
            **_named(cache),
        )
        positions = self.rotary_emb(hidden_states, inputs.position_ids)
        return inputs._replace(causal_mask=mask, position_embeddings=positions)


class StatemixForCausalLM(StatemixPreTrainedModel, GenerationMixin):
    """A language model: tokens [B, T] -> logits [B, T, V] of the next tokens.

    Args:
        config: A `StatemixConfig`.

    Example:
        >>> config = StatemixConfig(vocab_size=9, hidden_size=8, num_hidden_layers=2)
        >>> model = StatemixForCausalLM(config).eval()
        >>> prompt = torch.tensor([[1, 2, 3]])
        >>> model(prompt, labels=prompt).logits.shape
        torch.Size([1, 3, 9])
        >>> model.generate(prompt, max_new_tokens=4, do_sample=False).shape
        torch.Size([1, 7])
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: StatemixConfig) -> None:
        super().__init__(config)
        self.model = StatemixModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | Mapping[str, Tensor | None] | None = None,
        position_ids: Tensor | None = None,
        cache: StatemixCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        past_key_values: StatemixCache | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As `StatemixModel`, with logits and a loss.

        Args:
            input_ids: Tokens [B, T]; these and the rest as in `StatemixModel`.
            attention_mask: Which tokens are real.
            position_ids: Positions.
            cache: What came before.
            inputs_embeds: In place of tokens.
            labels: [B, T], -100 where nothing is predicted; the label of a place is predicted at the one before it.
            use_cache: Whether to return a cache.
            logits_to_keep: Logits of the last so many places alone, or of the places in a tensor; 0 for all.
            past_key_values: The older name of `cache`.
            **kwargs: As in `StatemixModel`, and what the loss takes (`num_items_in_batch`).
        """
        cache = cache if past_key_values is None else past_key_values
        if cache is not None and labels is None:
            logits = decoding.replayed(cache, input_ids, attention_mask, kwargs)
            if logits is not None:
                return CausalLMOutputWithPast(logits=logits, **_named(cache))
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **_named(outputs.get(CACHE)),
        )

    def generate(self, *args: Any, decode: str = "auto", **kwargs: Any) -> Any:
        """transformers' `generate` with a cache of constant size where all layers are recurrent.

        Args:
            *args: As transformers has them.
            decode: How tokens behind the prompt are computed, one of `statemix.hf.DECODERS`. "plain" launches every
                operation, "graph" replays a CUDA graph, "compiled" a compiled step; "auto" takes the graph on a GPU
                and the plain way elsewhere.
            **kwargs: As transformers has them. `past_key_values` and `cache` name the same in every version.

        Raises:
            ValueError: `decode` is unknown or cannot run here, or the cache is given under both names.
        """
        if "cache" in kwargs and "past_key_values" in kwargs:
            raise ValueError("cache, past_key_values: got both, expected one (they name the same)")
        for name in ("cache", "past_key_values"):
            if name in kwargs:
                kwargs[CACHE] = kwargs.pop(name)
        with decoding.Decoding(self, decode):
            return super().generate(*args, **kwargs)  # type: ignore[operator]

    @wraps(GenerationMixin.prepare_inputs_for_generation)  # transformers looks at its arguments
    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The inputs of the next forward. A token that was just generated is real: its mask need not be read."""
        inputs = dict(super().prepare_inputs_for_generation(*args, **kwargs))  # type: ignore[operator]
        cache = inputs.get(CACHE)
        generated = kwargs.get("next_sequence_length") == 1 and not kwargs.get("is_first_iteration")
        if isinstance(cache, StatemixCache) and generated:
            decoding.attach(cache)
            mask = inputs.pop("attention_mask", None)
            if not cache.recurrent:
                inputs["attention_mask"] = {ATTENTION: mask, RECURRENT: None}
        return inputs

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """A `StatemixCache` where transformers would make its own."""
        if model_kwargs.get(CACHE) is not None or generation_config.use_cache is False:
            return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation: got {kind!r}, expected None (a recurrent state has a constant size already)"
            )
        model_kwargs[CACHE] = StatemixCache(self.config)
        return None


__all__ = ["CACHE", "StatemixForCausalLM", "StatemixModel", "StatemixPreTrainedModel"]
