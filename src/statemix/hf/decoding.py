"""Tokens behind a prompt: launched operation by operation, or a whole step captured once and replayed.

A captured step reads its tokens and the states from tensors that stay where they are, and writes the new states there.
While `generate` runs, the cache's states are those tensors; afterwards the cache owns its storage again. The plain
way is the reference: a captured step gives the same numbers.
"""

from __future__ import annotations

import functools
import itertools
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from statemix.hf.cache import StatemixCache
from statemix.ops._torch_compat import copy_into, is_hooked, is_ordinary_parameter, recompile_limit

if TYPE_CHECKING:
    from statemix.hf.modeling import StatemixForCausalLM

States = list[tuple[Tensor, ...]]
"""The tensors of every layer's state."""

WARM_UP = 2
"""Steps launched before a capture: they compile kernels and allocate what libraries keep."""

RECOMPILATIONS = 64
"""How many builds of layers one process may compile."""


class CapturedStep:
    """One token of each sequence, from states that stay in place.

    Args:
        model: The model; all its layers are recurrent.
        tokens: Example tokens [B, 1].
        states: Example states, which are copied.
    """

    def __init__(self, model: StatemixForCausalLM, tokens: Tensor, states: States) -> None:
        self.tokens = tokens.clone()
        self.states: States = [tuple(map(torch.clone, layer)) for layer in states]

    @staticmethod
    def run(model: StatemixForCausalLM, tokens: Tensor, states: States) -> Tensor:
        """What is captured."""
        return step(model, tokens, states)

    def __call__(self, model: StatemixForCausalLM, tokens: Tensor) -> Tensor:
        """Tokens [B, 1] -> logits [B, 1, V], owned by the caller; `states` go one token on."""
        raise NotImplementedError


class GraphStep(CapturedStep):
    """A CUDA graph: one launch a token, whatever the number of layers."""

    def __init__(self, model: StatemixForCausalLM, tokens: Tensor, states: States) -> None:
        super().__init__(model, tokens, states)
        side = torch.cuda.Stream(tokens.device)
        side.wait_stream(torch.cuda.current_stream(tokens.device))
        with torch.cuda.device(tokens.device), torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.run(model, self.tokens, self.states)
            side.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=side):
                self._logits = self.run(model, self.tokens, self.states)
        torch.cuda.current_stream(tokens.device).wait_stream(side)

    def __call__(self, model: StatemixForCausalLM, tokens: Tensor) -> Tensor:
        """As `CapturedStep`."""
        self.tokens.copy_(tokens)
        self._graph.replay()
        return self._logits.clone()


class CompiledStep(CapturedStep):
    """A step compiled by torch, which models of equal build share."""

    def __init__(self, model: StatemixForCausalLM, tokens: Tensor, states: States) -> None:
        from statemix.training import ignore_compiler_warnings

        super().__init__(model, tokens, states)
        with warnings.catch_warnings():
            ignore_compiler_warnings()
            self(model, tokens)

    def __call__(self, model: StatemixForCausalLM, tokens: Tensor) -> Tensor:
        """As `CapturedStep`."""
        return self.run(model, tokens, self.states)

    @staticmethod
    def run(model: StatemixForCausalLM, tokens: Tensor, states: States) -> Tensor:
        """`step`, compiled."""
        with recompile_limit(RECOMPILATIONS):
            return _compiled()(model, tokens, states)


class CompiledGraphStep(GraphStep):
    """A CUDA graph of a compiled step."""

    run = staticmethod(CompiledStep.run)


DECODERS = ("plain", "graph", "compiled")
"""How tokens behind a prompt are computed (`StatemixForCausalLM.generate`); "plain": as any forward."""

STEPS: Mapping[tuple[str, str], type[CapturedStep]] = {
    ("graph", "cuda"): GraphStep,
    ("compiled", "cuda"): CompiledGraphStep,
    ("compiled", "cpu"): CompiledStep,
}
"""Captured steps by way and device type."""


def step(model: StatemixForCausalLM, tokens: Tensor, states: States) -> Tensor:
    """Tokens [B, 1] -> logits [B, 1, V]; the new states are written over `states`."""
    x, after = model.model.embed_tokens(tokens[:, 0]), []
    for layer, before in zip(model.model.layers, states, strict=True):
        x, new = layer.step(x, before)  # type: ignore[operator]
        after.extend(new)
    copy_into([old for layer in states for old in layer], after)
    return model.lm_head(model.model.norm(x))[:, None]  # type: ignore[no-any-return]


@functools.cache
def _compiled() -> Callable[[StatemixForCausalLM, Tensor, States], Tensor]:
    return torch.compile(step, fullgraph=True, dynamic=False)


_CURRENT: ContextVar[Decoding | None] = ContextVar("statemix.hf.decoding", default=None)

_KEPT: weakref.WeakKeyDictionary[nn.Module, tuple[Any, CapturedStep]] = weakref.WeakKeyDictionary()
"""The last captured step of each model, with what it was captured for."""


class Decoding:
    """While it is entered, caches of this model are replayed as `decode` says.

    Args:
        model: The model.
        decode: "auto" or one of `DECODERS`.

    Raises:
        ValueError: `decode` is unknown, needs a CUDA device, or the model has layers that cannot be captured.
    """

    def __init__(self, model: StatemixForCausalLM, decode: str = "auto") -> None:
        if decode != "auto" and decode not in DECODERS:
            known = ", ".join(map(repr, ("auto", *DECODERS)))
            raise ValueError(f"decode: got {decode!r}, expected one of {known}")
        self.model, self._optional = model, decode == "auto"
        device, reason = model.device.type, _unable(model)
        self._kind = STEPS.get(("graph" if decode == "auto" else decode, device)) if reason is None else None
        if decode not in ("auto", "plain") and self._kind is None:
            raise ValueError(
                f"decode: got {decode!r}, which does not work here: {reason or f'on a {device!r} device'}"
            )
        self._replays: list[tuple[StatemixCache, Replay]] = []

    def __enter__(self) -> Decoding:
        self._token: Token[Decoding | None] = _CURRENT.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _CURRENT.reset(self._token)
        for cache, replay in self._replays:
            replay.release(cache)
            cache.replay = None

    def attach(self, cache: StatemixCache) -> None:
        """Let a cache be replayed."""
        if (
            self._kind is not None
            and cache.replay is None
            and all(cache is not one for one, _ in self._replays)
        ):
            cache.replay = Replay(self.model, self._kind, self._optional)
            self._replays.append((cache, cache.replay))


class Replay:
    """The captured step of one cache, made when its first token comes."""

    def __init__(self, model: StatemixForCausalLM, kind: type[CapturedStep], optional: bool) -> None:
        self._model, self._kind, self._optional = model, kind, optional
        self._step: CapturedStep | None = None
        self._key: Any = None

    def __call__(self, tokens: Tensor, cache: StatemixCache) -> Tensor | None:
        """Logits [B, 1, V] of tokens [B, 1], and the cache one token on; None where the step cannot be captured."""
        states: States = [layer.states for layer in cache.layers]
        step = self._captured(tokens, states)
        if step is None:
            return None
        for place, (own, given) in enumerate(zip(step.states, states, strict=True)):
            if own is not given:  # the first token, or beams in another order
                copy_into(list(own), list(given))
                cache.layers[place].states = own
        logits = step(self._model, tokens)
        for layer in cache.layers:
            layer.tokens += 1
        return logits

    def release(self, cache: StatemixCache) -> None:
        """Give the cache storage of its own, and keep the step for the next text."""
        if self._step is None:
            return
        for layer in cache.layers:
            layer.states = tuple(map(torch.clone, layer.states))
        if (known := _fingerprint(self._model)) is not None:
            _KEPT[self._model] = ((self._key, known), self._step)
        self._step = None

    def _captured(self, tokens: Tensor, states: States) -> CapturedStep | None:
        key = (self._kind, tokens.shape[0], tokens.device, tokens.dtype, _mode(tokens.device.type))
        if self._step is not None and self._key == key:
            return self._step
        kept, step = _KEPT.pop(self._model, (None, None))
        if step is not None and kept == (key, _fingerprint(self._model)):
            self._step, self._key = step, key
            return step
        try:
            self._step, self._key = self._kind(self._model, tokens, states), key
        except Exception as error:
            if not self._optional:
                raise
            reason = (str(error).splitlines() or [""])[0]
            message = f"decoding step by step: the step cannot be captured ({type(error).__name__}: {reason})"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            self._step = None
        return self._step


def attach(cache: StatemixCache) -> None:
    """Let a cache be replayed if `generate` says so."""
    current = _CURRENT.get()
    if current is not None and cache.recurrent:
        current.attach(cache)


def replayed(
    cache: StatemixCache, tokens: Tensor | None, mask: Any, options: Mapping[str, Any]
) -> Tensor | None:
    """Logits [B, 1, V] of a replayed step; None where the model must run: several tokens, a mask, recorded layers."""
    if getattr(cache, "replay", None) is None or tokens is None or tokens.shape[1] != 1 or mask is not None:
        return None
    if not cache.get_seq_length() or torch.is_grad_enabled():
        return None
    if options.get("output_hidden_states") or options.get("output_attentions"):
        return None
    logits: Tensor | None = cache.replay(tokens, cache)
    if logits is None:
        cache.replay = None
    return logits


def _unable(model: StatemixForCausalLM) -> str | None:
    """Why a model's steps cannot be captured, or None."""
    if any(mixer is None for mixer in model.config.mixers or ()):
        return "the keys and values of attention layers grow"
    if len({str(tensor.device) for tensor in itertools.chain(model.parameters(), model.buffers())}) > 1:
        return "the model lies on several devices"
    for layer in model.model.layers:
        state = layer.block.mixer.initial_state(1)  # type: ignore[operator, union-attr]
        if isinstance(state, Tensor) and 0 in state.shape:
            return "the state of a mixer grows"
    return None


def _mode(device: str) -> tuple[Any, ...]:
    """What a step computes in: tensors of inference mode cannot be written outside it."""
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return torch.is_inference_mode_enabled(), autocast


def _fingerprint(model: nn.Module) -> tuple[Any, ...] | None:
    """What a captured step depends on beside its inputs; None where that cannot be told: hooks, adapters."""
    modules = list(model.modules())
    for module in modules:
        if is_hooked(module) or not type(module).__module__.startswith(("torch.nn.", "statemix.")):
            return None
    if not all(map(is_ordinary_parameter, model.parameters())):  # quantised ones have no address
        return None
    tensors = itertools.chain(model.parameters(), model.buffers())
    return (
        *(module.training for module in modules),
        *((tensor.data_ptr(), tensor.dtype) for tensor in tensors),
    )
