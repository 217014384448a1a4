"""Whole language models of equal parameters: training, the first token after a long prompt, and generation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import as_record, attempt
from benchmarks.records import Record, header
from statemix.analysis import parameters
from statemix.hf import StatemixConfig, StatemixForCausalLM
from statemix.lm import (
    LM_PRESETS,
    chunked_cross_entropy,
    compile_blocks,
    matmul_rate,
)
from statemix.timing import summarize

WHAT = (
    "training: tokens of one optimiser step (micro-batches of forward and backward, clip, AdamW) per second, every "
    "block compiled, bfloat16 autocast. prompt: milliseconds to a prompt's first token, batch 1. context: milliseconds "
    "of a token behind so many, and memory above the weights, batch 1. generation: new tokens per second."
)

ATTENTION = "transformer"
"""Built of transformers' own attention layers, which call torch's scaled_dot_product_attention."""

SHORT = 128
"""Tokens of the prompts that texts are generated from."""

ATTENDS = "full_attention"
"""The type of attention layers."""

STEP_TOKENS = 2**19
"""Tokens of one optimiser step, as in the paper's protocol."""

CHUNK = 8192
"""Tokens whose logits exist at once."""

PREFILL = 16_384
"""Tokens of a prompt that run at once where the state is of constant size."""


class Setting(NamedTuple):
    """What is measured, where and how often."""

    size: str
    models: Sequence[str]
    device: torch.device
    tokens: int
    """Of a micro-batch."""
    repeats: int
    compiled: bool


def models_of(size: str) -> list[str]:
    """Every model that is a preset of a size: its name behind the size. ValueError for an unknown size."""
    models: dict[str, list[str]] = {}
    for of, dash, model in (name.partition("-") for name in LM_PRESETS if not _is_same_model(name)):
        if dash:
            models.setdefault(of, []).append(model)
    if size not in models:
        raise ValueError(f"size: got {size!r}, expected one of {', '.join(models)}")
    return models[size]


def _is_same_model(preset: str) -> bool:
    """Whether a preset is another one with another number of tokens, which its name adds."""
    return preset.rpartition("-")[0] in LM_PRESETS


def make_config(size: str, name: str, **changes: Any) -> StatemixConfig:
    """The Hugging Face configuration of a preset; block options of the preset included."""
    preset = LM_PRESETS[f"{size}-{name}"]
    model, mixer, block = preset["model"], dict(preset["mixer"]), preset.get("block", {})
    sizes: dict[str, Any] = {
        "vocab_size": model["vocab_size"], "hidden_size": model["dim"], "num_hidden_layers": model["depth"],
        "tie_word_embeddings": model.get("tie_embeddings", False), "intermediate_size": block.get("mlp_width"),
    }  # fmt: skip
    if name == ATTENTION:
        heads = {"num_attention_heads": mixer["heads"], "head_dim": mixer["head_dim"]}
        return StatemixConfig(**sizes, layer_types=[ATTENDS], **heads, **changes)
    kind = mixer.pop("name")
    return StatemixConfig(**sizes, mixer=kind, mixer_arguments=mixer, **changes)


def build(setting: Setting, name: str, dtype: torch.dtype = torch.float32) -> StatemixForCausalLM:
    """A model on the device, its weights drawn there."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        model = StatemixForCausalLM(make_config(setting.size, name))
    return model.to(dtype)  # type: ignore[arg-type]


class TrainingStep:
    """A model, its optimiser and a micro-batch [B, T + 1] of random tokens."""

    def __init__(self, setting: Setting, name: str, length: int) -> None:
        self.device, self.model = setting.device, build(setting, name)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        rows = max(1, setting.tokens // length)
        self.micro_batches = max(1, STEP_TOKENS // (rows * length))
        self.batch = torch.randint(self.model.vocab_size, (rows, length + 1), device=self.device)
        self._loss = partial(
            chunked_cross_entropy, chunk=CHUNK, dtype=torch.bfloat16, compiled=setting.compiled
        )
        if setting.compiled:
            layers: Any = self.model.model.layers
            compile_blocks(layers if name == ATTENTION else [layer.block for layer in layers], dynamic=False)

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.batch[:, 1:].numel()

    def micro_batch(self) -> Tensor:
        """Forward and backward."""
        with torch.autocast(self.device.type, torch.bfloat16):
            x = self.model.model(self.batch[:, :-1], use_cache=False).last_hidden_state
        head = self.model.lm_head
        loss = self._loss(x.flatten(0, 1), head.weight, head.bias, self.batch[:, 1:].flatten()) / self.tokens
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """Clip and AdamW."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    begun = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(call: Callable[[], object], device: torch.device) -> float:
    """Gibibytes that a call needs at most, above what was allocated; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def train_rows(setting: Setting, lengths: Sequence[int]) -> Iterator[Record]:
    """A row for every model and length. All models of a length are timed in rounds, so that drift affects all alike."""
    rate = matmul_rate(setting.device, torch.bfloat16)
    for length in lengths:
        ready: dict[str, TrainingStep] = {}
        rows = []
        for name in setting.models:
            row: Record = {"model": name, "length": length}
            row = attempt(row, setting.device, partial(_prepare, setting, name, length, ready))
            rows.append(row)
        times: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(setting.repeats):
            for name, step in ready.items():
                times[name].append(_seconds(step.micro_batch, setting.device))
        for row in rows:
            if row["model"] in ready:
                row |= _training_row(ready[row["model"]], times[row["model"]], rate)
            yield row


def _prepare(setting: Setting, name: str, length: int, ready: dict[str, TrainingStep]) -> Record:
    """Build and warm up; a loss that is no number is a failure."""
    step = TrainingStep(setting, name, length)
    begun = time.perf_counter()
    for _ in range(2):
        loss = step.micro_batch()
        step.update()
    if not loss.isfinite():
        raise RuntimeError(f"{name}: the loss is {loss.item()}")
    warm = time.perf_counter() - begun
    memory = _memory(step.micro_batch, setting.device)
    ready[name] = step
    return {"parameters": parameters(step.model), "ready_s": warm, "memory_gib": memory}


def _training_row(step: TrainingStep, seconds: list[float], rate: float) -> Record:
    update = statistics.median(_seconds(step.update, step.device) for _ in range(5))
    whole = [one * step.micro_batches + update for one in seconds]
    tokens = step.micro_batches * step.tokens
    embedding = step.model.model.embed_tokens.weight.numel()
    weights = parameters(step.model) - (0 if step.model.config.tie_word_embeddings else embedding)
    speed = tokens / statistics.median(whole)
    return {
        "micro_batch": list(step.batch[:, 1:].shape),
        **as_record(summarize([1000 * one for one in seconds])),
        "update_ms": 1000 * update,
        "tokens_per_s": speed,
        "share_of_matmul": 6 * weights * speed / rate,
        "matmul_flops": rate,
    }


@torch.inference_mode()
def prompt_rows(setting: Setting, lengths: Sequence[int]) -> Iterator[Record]:
    """The first token after prompts, batch 1."""
    for name in setting.models:
        model = build(setting, name, _half(setting)).eval()
        for length in lengths:
            yield attempt(
                {"model": name, "prompt": length}, setting.device, partial(_prompt, model, length, setting)
            )


def _half(setting: Setting) -> torch.dtype:
    return torch.bfloat16 if setting.device.type == "cuda" else torch.float32


def _prompt(model: StatemixForCausalLM, length: int, setting: Setting) -> Record:
    prompt = torch.randint(model.vocab_size, (1, length), device=setting.device)
    call = partial(_generate, model, prompt, 1)
    call()
    memory = _memory(call, setting.device)
    seconds = [_seconds(call, setting.device) for _ in range(setting.repeats)]
    return {**as_record(summarize([1000 * one for one in seconds])), "memory_gib": memory}


def _generate(model: StatemixForCausalLM, prompt: Tensor, new: int) -> Any:
    attends = ATTENDS in (model.config.layer_types or ())  # slower in parts
    in_parts = prompt.shape[1] > PREFILL and not attends
    options: dict[str, Any] = {"prefill_chunk_size": PREFILL} if in_parts else {}
    return model.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False, **options)


@torch.inference_mode()
def context_rows(setting: Setting, positions: Sequence[int], new: int) -> Iterator[Record]:
    """A token behind so many others, batch 1: the time of `new` tokens less that of the first."""
    for name in setting.models:
        model = build(setting, name, _half(setting)).eval()
        for position in positions:
            facts = {"model": name, "context": position}
            yield attempt(facts, setting.device, partial(_context, model, position, new, setting))


def _context(model: StatemixForCausalLM, position: int, new: int, setting: Setting) -> Record:
    prompt = torch.randint(model.vocab_size, (1, position), device=setting.device)
    long, short = partial(_generate, model, prompt, new + 1), partial(_generate, model, prompt, 1)
    long()
    memory = _memory(long, setting.device)
    pairs = [
        (_seconds(long, setting.device), _seconds(short, setting.device)) for _ in range(setting.repeats)
    ]
    times = [1000 * (a - b) / new for a, b in pairs]
    return {**as_record(summarize(times)), "memory_gib": memory}


@torch.inference_mode()
def generation_rows(setting: Setting, batches: Sequence[int], prompt: int, new: int) -> Iterator[Record]:
    """New tokens per second through `generate`, greedy, all sequences `new` tokens long."""
    for name in setting.models:
        model = build(setting, name, _half(setting)).eval()
        for batch in batches:
            facts = {"model": name, "batch": batch, "prompt": prompt, "new": new}
            yield attempt(facts, setting.device, partial(_generation, model, facts, setting))


def _generation(model: StatemixForCausalLM, facts: Record, setting: Setting) -> Record:
    tokens = torch.randint(model.vocab_size, (facts["batch"], facts["prompt"]), device=setting.device)
    call = partial(_generate, model, tokens, facts["new"])
    call()
    seconds = [_seconds(call, setting.device) for _ in range(setting.repeats)]
    speed = facts["batch"] * facts["new"] / statistics.median(seconds)
    return {**as_record(summarize([1000 * one for one in seconds])), "tokens_per_s": speed}


class Cases(NamedTuple):
    """Where each part measures."""

    lengths: Sequence[int]
    prompts: Sequence[int]
    contexts: Sequence[int]
    batches: Sequence[int]
    new: int
    """Tokens that are generated."""


PARTS: dict[str, Callable[[Setting, Cases], Iterator[Record]]] = {
    "training": lambda setting, cases: train_rows(setting, cases.lengths),
    "prompt": lambda setting, cases: prompt_rows(setting, cases.prompts),
    "context": lambda setting, cases: context_rows(setting, cases.contexts, cases.new),
    "generation": lambda setting, cases: generation_rows(setting, cases.batches, SHORT, cases.new),
}
"""What can be measured, by name."""


def new_record(setting: Setting) -> Record:
    """A record without rows."""
    record = header("language-models", WHAT, setting.device)
    return record | {"size": setting.size, **{part: [] for part in PARTS}}
