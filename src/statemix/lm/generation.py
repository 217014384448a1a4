"""Text from a language model, part by part, with a state of constant size."""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import Tensor, nn

from statemix.lm.stateful import Stateful, stateful
from statemix.lm.streaming import StopStrings, TextStream
from statemix.packs import Tokenizer

PREFILL = 2048
"""Tokens of a prompt that are read in one forward."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from logits.

    temperature: logits are divided by it; 0 takes the likeliest token. top_k: only the k likeliest. top_p: only the
    likeliest that together have probability p (the first that passes p included). seed: of the draws.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: got {self.temperature!r}, expected 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: got {self.top_k!r}, expected at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: got {self.top_p!r}, expected more than 0 and at most 1")

    def generator(self) -> torch.Generator:
        """A generator at its beginning; on the CPU, so that every device draws the same numbers."""
        return torch.Generator().manual_seed(self.seed)

    def choose(self, logits: Tensor, generator: torch.Generator) -> int:
        """logits [V] -> a token."""
        if self.temperature == 0:
            return int(logits.argmax())
        chances = (logits.to("cpu", torch.float64) / self.temperature).softmax(0)
        chances, tokens = chances.sort(descending=True, stable=True)
        kept = len(chances) if self.top_k is None else self.top_k
        if self.top_p is not None:
            before = chances[:kept].cumsum(0) / chances[:kept].sum() - chances[:kept] / chances[:kept].sum()
            kept = int((before < self.top_p).sum())
        return int(tokens[torch.multinomial(chances[:kept], 1, generator=generator)])


@dataclass
class Rates:
    """What a generation took: tokens and seconds of the prompt and of what followed."""

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    new_tokens: int = 0
    seconds: float = 0.0


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    max_tokens: int = 256,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    prefill: int = PREFILL,
    rates: Rates | None = None,
) -> Iterator[str]:
    """Text that follows a prompt, in parts, as it comes.

    The prompt is read in pieces with the state carried, so its length costs time but no memory. Every token then costs
    the same. The end of a document ends the text.

    Args:
        model: A `LanguageModel`, or a `StatemixForCausalLM`. It runs where it lies.
        tokenizer: That of the model (`statemix.packs.load_tokenizer`, `Pack.tokenizer`).
        prompt: Text, or token ids.
        max_tokens: The most new tokens.
        sampling: How tokens are chosen; by default at temperature 1.
        stop: Strings that end the text and are not part of it.
        prefill: Tokens of the prompt in one forward.
        rates: Is filled in: tokens and seconds.

    Yields:
        Parts of the text, whole characters. Bytes that are no character are U+FFFD.

    Raises:
        TypeError: The model is of another kind.
        ValueError: The prompt is empty or has ids outside the vocabulary, a size is below 1, or a stop string is empty.
        FloatingPointError: The logits are not finite.

    Example:
        >>> from statemix.packs import ByteTokenizer
        >>> model = LanguageModel(257, 16, lambda dim: BDLRU(dim, block_size=4))
        >>> text = "".join(generate(model, ByteTokenizer(), "The state", max_tokens=8, sampling=Sampling(seed=1)))
        >>> len(text) <= 8
        True

    Source: top-p sampling, arXiv 1904.09751.
    """
    whole, chosen = stateful(model), sampling or Sampling()
    ids = _prompt_ids(prompt, tokenizer, whole.vocab_size)
    for name, value in (("max_tokens", max_tokens), ("prefill", prefill)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1")
    if isinstance(stop, str) or not all(stop):
        raise ValueError(f"stop: got {stop!r}, expected a list of strings that are not empty")
    tokens = _tokens(
        model, whole, ids, chosen, prefill, tokenizer.vocab_size, Rates() if rates is None else rates
    )
    return _parts(islice(_until(tokens, tokenizer.end_of_document), max_tokens), TextStream(tokenizer), stop)


def _prompt_ids(prompt: str | Sequence[int], tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The ids of a prompt, checked."""
    if isinstance(prompt, str):
        ids = tokenizer.encode([prompt])[0][:-1].tolist()  # without the end of a document
    else:
        ids = [operator.index(one) for one in prompt]
    if not ids:
        raise ValueError("prompt: got no tokens, expected at least one")
    wrong = [one for one in ids if not 0 <= one < vocab_size]
    if wrong:
        raise ValueError(
            f"prompt: got the id {wrong[0]}, expected ids from 0 to {vocab_size - 1}: the model's"
        )
    return ids


@torch.no_grad()
def _tokens(
    model: nn.Module,
    whole: Stateful,
    ids: list[int],
    sampling: Sampling,
    prefill: int,
    words: int,
    rates: Rates,
) -> Iterator[int]:
    """Token after token, without end. words: ids of the tokenizer; a model may have more."""
    training, generator = model.training, sampling.generator()
    model.eval()
    try:
        began = time.perf_counter()
        state, prompt = None, torch.tensor([ids], device=whole.device)
        for piece in prompt.split(prefill, dim=1):
            x, state = whole.hidden(piece, state)
        logits = whole.logits(x[:, -1])
        with whole.replaying(state):
            while True:
                token = sampling.choose(_finite(logits[0, :words]), generator)
                now = time.perf_counter()
                if not rates.prompt_tokens:
                    rates.prompt_tokens, rates.prompt_seconds, began = len(ids), now - began, now
                rates.new_tokens, rates.seconds = rates.new_tokens + 1, now - began
                yield token
                logits, state = whole.step(torch.tensor([token], device=whole.device), state)
    finally:
        model.train(training)


def _finite(logits: Tensor) -> Tensor:
    if not bool(logits.isfinite().all()):
        raise FloatingPointError("logits: got infinite numbers or NaN, expected finite ones")
    return logits


def _until(tokens: Iterator[int], end: int) -> Iterator[int]:
    return takewhile(lambda token: token != end, tokens)


def _parts(tokens: Iterator[int], text: TextStream, stop: Sequence[str]) -> Iterator[str]:
    """The text of tokens, up to a stop string."""
    stops = StopStrings(stop)
    for token in tokens:
        if part := stops.add(text.add(token)):
            yield part
        if stops.found:
            return
    if part := stops.add(text.end()) + ("" if stops.found else stops.end()):
        yield part
