"""From a configuration to the things it names: model, optimiser, learning rate, FLOPs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from statemix.analysis import flops_per_token_of
from statemix.lm.config import LMConfig, TrainingConfig
from statemix.models import LanguageModel
from statemix.nn import build_mixer, mixer_functions, mixers_in_turn
from statemix.ops._torch_compat import allow_recompilations

SHORT = 128
"""Tokens on which FLOPs are counted where they do not depend on the length."""

SHAPES = 64
"""Shapes of blocks and of their inputs that are compiled in a process."""

MATRIX = 8192
"""Rows and columns of the matrix product that MFU is a share of, on a GPU; an eighth of it on a CPU."""


def build_language_model(config: LMConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """The model of a configuration, its first weights drawn from the seed on the CPU, then moved.

    They are the same on every device and any number of processes. The global random state is kept. ValueError or
    TypeError names a setting that cannot be.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.training.seed)
        return _build(config).to(device)


def _build(config: LMConfig) -> LanguageModel:
    model = config.model
    return LanguageModel(
        model.vocab_size, model.dim, mixer_functions(config.mixer, model.depth), depth=model.depth,
        norm=model.norm, tie_embeddings=model.tie_embeddings, head_bias=model.head_bias, block=config.block,
        scaled_init=model.scaled_init,
    )  # fmt: skip


def compile_blocks(blocks: Iterable[nn.Module], dynamic: bool | None = None) -> None:
    """Compile each block in place, at its first call. Blocks of one shape share the compiled code.

    dynamic: as `torch.compile` takes it; None compiles for other lengths or numbers of documents once they come.
    The compiler may not pad strides: a scan would copy what was padded, a tenth of the time of a step.

    >>> model = LanguageModel(257, 16, lambda dim: BDLRU(dim, block_size=4), depth=2)
    >>> compile_blocks(model.layers)  # nothing is compiled before the first call
    """
    allow_recompilations(SHAPES)
    for block in blocks:
        block.compile(dynamic=dynamic, options={"comprehensive_padding": False})


class SkippingAdamW(torch.optim.AdamW):
    """AdamW whose step does nothing while `found_inf` is 1.0, without waiting for the device.

    `found_inf` is the name by which torch's fused optimisers know what `torch.amp.GradScaler` has found.
    """

    found_inf: torch.Tensor | None = None


def build_optimizer(model: nn.Module, training: TrainingConfig) -> SkippingAdamW:
    """Fused AdamW; matrices and embeddings decay, vectors do not.

    >>> model = LanguageModel(257, 16, lambda dim: BDLRU(dim, block_size=4), depth=1)
    >>> optimizer = build_optimizer(model, TrainingConfig(weight_decay=0.1))
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.1, 0.0]
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return SkippingAdamW(groups, lr=training.lr, betas=training.betas, fused=True)


def count_flops(config: LMConfig) -> int:
    """FLOPs of a forward pass per token, counted without allocating the model (`statemix.analysis`)."""
    with torch.random.fork_rng(devices=[]):
        length = (
            config.data.length if _grows(config.mixer, config.model.dim) else min(SHORT, config.data.length)
        )
        return flops_per_token_of(lambda: _build(config), 1, length)


def _grows(mixer: Mapping[str, Any], dim: int) -> bool:
    """Whether a mixer's state grows with the context, as attention's, so that its cost per token does."""
    mixers: list[Any] = [
        build_mixer(**{**one, "dim": dim, "device": "meta"}) for one in mixers_in_turn(mixer)
    ]
    states = [one.initial_state(1) for one in mixers]
    return any(isinstance(state, torch.Tensor) and 0 in state.shape for state in states)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product on this device, the median of five: what MFU is a share of.

    >>> matmul_rate(torch.device("cpu"), torch.float32) > 1e6
    True
    """
    size = MATRIX if device.type == "cuda" else MATRIX // 8
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = [_seconds(lambda: a @ b, device) for _ in range(7)][2:]
    return 2 * size**3 / statistics.median(times)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    begun = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begun


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
