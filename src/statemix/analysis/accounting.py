"""What a model costs: parameters, carried state, and the FLOPs of a forward pass per token."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import statemix.ops  # noqa: F401 - registers the operators that the formulas below are for
from statemix.nn import Block, Stack
from statemix.ops._torch_compat import without_memory


def _block_scan_flops(gates: tuple[int, ...], values: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Per block and token: m² products, m² - m sums, m input products (none in an affine scan) and m input sums."""
    batch, length, blocks, m = values
    return batch * length * blocks * (2 * m * m + (m if gates[-1] > m else 0))


def _window_scan_flops(gates: tuple[int, ...], values: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Per channel and token: m products, m - 1 sums, one input product and one input sum."""
    batch, length, channels, taps = gates
    return batch * length * channels * (2 * taps - 1)


@functools.cache
def _register_formulas() -> None:
    from torch.utils.flop_counter import register_flop_formula  # takes a second: it imports the compiler

    operators = torch.ops.statemix
    register_flop_formula([operators.bdlru_scan, operators.affine_scan])(_block_scan_flops)
    register_flop_formula(operators.hlru_scan)(_window_scan_flops)


def mixers(module: nn.Module) -> list[nn.Module]:
    """The mixers in a module, itself included, in order: what has an `initial_state` and a `step`.

    Of blocks and stacks their parts, short convolutions among them.
    """
    parts = (part for part in module.modules() if not isinstance(part, (Block, Stack)))
    return [part for part in parts if hasattr(part, "initial_state") and hasattr(part, "step")]


def parameters(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def mixer_parameters(module: nn.Module) -> int:
    """The parameters of the mixers alone."""
    return sum(map(parameters, mixers(module)))


def state_size(module: nn.Module, context: int = 1) -> int:
    """Numbers carried from token to token per sequence, summed over the mixers: the size of `initial_state(1)`.

    context: tokens read so far. A dimension of the initial state that is 0 grows by one for each, as in attention's
    keys and values.
    """
    shapes = (mixer.initial_state(1).shape for mixer in mixers(module))  # type: ignore[operator]
    return sum(math.prod(context if size == 0 else size for size in shape) for shape in shapes)


@torch.no_grad()
def flops_per_token(model: nn.Module, tokens: Tensor) -> int:
    """FLOPs of one forward pass on tokens int64 [B, T], divided by B T: the whole model, head included.

    Counted by `torch.utils.flop_counter.FlopCounterMode`: 2 for each multiply-add of a matrix product, a convolution or
    attention, and for the scans 2m² + m per block (BD-LRU), 2m + 1 per channel (H-LRU) or 2m² per block (affine).
    Other elementwise operations (norms, activations, gate normalisation) are not counted, and no backward pass.
    The pass runs on a copy on the CPU, so the count is the same for every device.

    >>> import torch
    >>> from statemix.models import LanguageModel
    >>> from statemix.nn import BDLRU
    >>> model = LanguageModel(6, 16, lambda dim: BDLRU(dim, block_size=2, num_blocks=8))
    >>> flops_per_token(model, torch.zeros(1, 32, dtype=torch.int64))
    14688
    """
    model = copy.deepcopy(model).to("cpu", torch.float64)  # a float32 LSTM is one operator, not counted
    return _count(model, tokens.cpu())


@torch.no_grad()
def flops_per_token_of(build: Callable[[], nn.Module], batch_size: int, length: int) -> int:
    """As `flops_per_token`, of the model that `build()` returns, without computing or allocating anything.

    For models that are too large to run on a CPU: tensors are fake ones of torch, which
    have shapes alone. batch_size, length: B and T of the tokens.

    >>> from statemix.models import LanguageModel
    >>> from statemix.nn import BDLRU
    >>> flops_per_token_of(lambda: LanguageModel(6, 16, lambda dim: BDLRU(dim, block_size=2, num_blocks=8)), 1, 32)
    14688
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with without_memory():
            return _count(build(), torch.zeros(batch_size, length, dtype=torch.int64))
    finally:
        torch.set_default_dtype(default)


def _count(model: nn.Module, tokens: Tensor) -> int:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    _register_formulas()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens)
    return round(counter.get_total_flops() / tokens.numel())
