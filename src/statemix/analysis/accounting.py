"""What a model costs: parameters, carried state, and the FLOPs of a forward pass per token."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import statemix.ops  # noqa: F401 - registers the operators that the formulas below are for

Entry = TypeVar("Entry")


@register_flop_formula([torch.ops.statemix.bdlru_scan, torch.ops.statemix.affine_scan])
def _block_scan_flops(gates: tuple[int, ...], values: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Per block and token: m² products, m² - m sums, m input products (none in an affine scan) and m input sums."""
    batch, length, blocks, m = values
    return batch * length * blocks * (2 * m * m + (m if gates[-1] > m else 0))


@register_flop_formula(torch.ops.statemix.hlru_scan)
def _window_scan_flops(gates: tuple[int, ...], values: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Per channel and token: m products, m - 1 sums, one input product and one input sum."""
    batch, length, channels, taps = gates
    return batch * length * channels * (2 * taps - 1)


def entry_of(table: Mapping[type[nn.Module], Entry], part: nn.Module) -> Entry | None:
    """What a table keyed by class holds for a module: for its class or the nearest ancestor, else None."""
    return next((table[kind] for kind in type(part).__mro__ if kind in table), None)


def mixers(module: nn.Module) -> list[nn.Module]:
    """The mixers in a module, itself included, in order: what has an `initial_state` and a `step`."""
    return [part for part in module.modules() if hasattr(part, "initial_state") and hasattr(part, "step")]


def parameters(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def mixer_parameters(module: nn.Module) -> int:
    """The parameters of the mixers alone."""
    return sum(map(parameters, mixers(module)))


@torch.no_grad()
def state_size(module: nn.Module, context: int = 1) -> int:
    """Numbers carried from token to token per sequence, summed over the mixers.

    context: tokens read so far. It matters where the state grows with them, as attention's keys and values do.
    """
    return sum(_carried(mixer, context) for mixer in mixers(module))


def _carried(mixer: Any, context: int) -> int:
    size = mixer.initial_state(1).numel()
    if size:
        return int(size)
    like = next(mixer.parameters())
    return context * int(mixer.step(like.new_zeros(1, mixer.dim))[1].numel())


@torch.no_grad()
def flops_per_token(model: nn.Module, tokens: Tensor) -> int:
    """FLOPs of one forward pass on tokens int64 [B, T], divided by B T: the whole model, head included.

    Counted by `torch.utils.flop_counter.FlopCounterMode`: 2 for each multiply-add of a matrix product, a convolution or
    attention, and for our scans 2m² + m per block (BD-LRU), 2m + 1 per channel (H-LRU) or 2m² per block (affine).
    Other elementwise operations (norms, activations, gate normalisation) are not counted, and no backward pass.
    The pass runs on a copy on the CPU, so the count is the same for every device.

    >>> import torch
    >>> from statemix.models import LanguageModel
    >>> from statemix.nn import BDLRU
    >>> model = LanguageModel(6, 16, lambda dim: BDLRU(dim, block_size=2, num_blocks=8))
    >>> flops_per_token(model, torch.zeros(1, 32, dtype=torch.int64))
    14688
    """
    model = copy.deepcopy(model).to(
        "cpu", torch.float64
    )  # in float32 an LSTM is one operator that is not counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(tokens.cpu())
    return round(counter.get_total_flops() / tokens.numel())
