"""From a configuration to the things it names: device, task, model, optimiser, autocast, learning rate."""

from __future__ import annotations

import contextlib
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from statemix.models import MODELS
from statemix.nn import mixer_functions
from statemix.tasks import Task, get_task
from statemix.training.config import MAX_INT, Config, TrainingConfig

COMPILED_FROM = 5000
"""Steps from which "auto" compiles: below, the minute that compilation takes is longer than what it saves."""


def build_device(config: Config) -> torch.device:
    """The device named by the configuration. ValueError when it does not exist here."""
    name = config.training.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"training.device: got {name!r}, which cannot be used here: {reason}") from None
    return device


def build_task(config: Config) -> Task:
    """The task of a configuration."""
    return get_task(**config.task)


def eval_lengths(config: Config, task: Task) -> list[int]:
    """The training length and the configured lengths, ascending."""
    return sorted({task.length, *config.training.eval_lengths})


def eval_examples(config: Config, task: Task, length: int) -> int:
    """How many instances of a length are evaluated: as many as `eval_tokens` holds, `eval_examples` at most."""
    most = config.training.eval_tokens // task.input_length(length)
    return min(config.training.eval_examples, max(1, most) if config.training.eval_tokens else MAX_INT)


def build_model(config: Config, task: Task | None = None) -> nn.Module:
    """The model of a configuration, on the CPU, its first weights drawn from the seed.

    The global random state is kept. task: that of the configuration, if it is built already.

    >>> from statemix.training import resolve_config
    >>> model = build_model(resolve_config("demo-bdlru"))
    >>> sum(parameter.numel() for parameter in model.parameters())
    64408
    """
    task = build_task(config) if task is None else task
    options: dict[str, Any] = {
        "depth": config.model.depth, "norm": config.model.norm, "block": {"mlp": config.model.mlp},
    }  # fmt: skip
    if task.backbone == "autoencoder":
        options["max_length"] = max(map(task.input_length, eval_lengths(config, task)))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.training.seed)
        mixers = mixer_functions(config.mixer, config.model.depth)
        return MODELS[task.backbone](task.vocab_size, config.model.dim, mixers, **options)


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; matrices and embeddings decay, vectors do not.

    Its state is there before the first step. On a GPU a step is one fused update, which a CUDA graph can capture.
    """
    parameters = list(model.parameters())
    on_gpu = parameters[0].is_cuda
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=training.lr, betas=training.betas, fused=on_gpu or None, capturable=on_gpu
    )
    for parameter in parameters:
        step = torch.zeros((), device=parameter.device if on_gpu else "cpu")
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": step, **moments}
    return optimizer


def learning_rate(training: TrainingConfig, step: int) -> float:
    """The rate of a step (from 0): a linear rise over `warmup` steps, then constant or a cosine to `min_lr`."""
    if step < training.warmup:
        return training.lr * (step + 1) / training.warmup
    if training.schedule == "constant":
        return training.lr
    progress = (step - training.warmup) / max(1, training.steps - training.warmup)
    return training.min_lr + 0.5 * (training.lr - training.min_lr) * (1 + math.cos(math.pi * progress))


def captures_of(training: TrainingConfig, device: torch.device) -> tuple[str, ...]:
    """The ways to run steps, to be tried in order. ValueError for one that needs a GPU on another device."""
    if training.capture == "off" or (training.capture == "auto" and device.type != "cuda"):
        return ("off",)
    if device.type != "cuda":
        raise ValueError(f"training.capture: {training.capture!r} needs a CUDA device, got {str(device)!r}")
    if training.capture != "auto":
        return (training.capture,)
    return (*(("compiled",) if training.steps >= COMPILED_FROM else ()), "graph", "off")


def build_autocast(training: TrainingConfig, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the configuration or, for "auto", the device asks for it."""
    automatic = training.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    if automatic or training.precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
