"""What a hard layer does with its inputs: which channel copies which, and which takes a new value; blocks at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.nn import HLRU, Block
from statemix.nn.layer import RecurrentLayer
from statemix.ops import normalize


def check_hard(model: nn.Module) -> None:
    """ValueError unless every layer of a language model is a block around a hard BD-LRU or H-LRU."""
    blocks = list(getattr(model, "layers", ()))
    if not blocks or not hasattr(model, "embedding") or not hasattr(model, "head"):
        raise ValueError(f"model: got {type(model).__name__}, expected a LanguageModel of hard layers")
    for i, block in enumerate(blocks):
        mixer = getattr(block, "mixer", None)
        name = type(mixer).__name__
        if not isinstance(block, Block) or not isinstance(mixer, RecurrentLayer):
            raise ValueError(f"model: layer {i} is a {name}, expected BDLRU or HLRU with hard=True")
        if not mixer.hard:
            raise ValueError(
                f"model: layer {i} is a {name} with hard=False, expected hard=True: only hard rows keep to finitely "
                "many contents"
            )
        if block.convolution is not None:
            raise ValueError(f"model: layer {i} has a convolution, expected none around a layer that is read")


@dataclass(frozen=True)
class HardMaps:
    r"""What each of I inputs does with the blocks of a hard layer: $h_i \leftarrow sign_i \cdot h_{source_i}$.

    Source m stands for the value that the input brings; a sign of 0 for a row of zeros.

    source: int64 [I, N, m]. sign: [I, N, m]. values: [I, N, m]. initial: [N, m]. gaps: [N], how far the largest weight
    of a block's rows is from the next at least.
    """

    source: Tensor
    sign: Tensor
    values: Tensor
    initial: Tensor
    gaps: Tensor

    def step(self, contents: Tensor, inputs: Tensor, blocks: Tensor | slice = slice(None)) -> Tensor:
        """The contents of some blocks behind an input: [E, n, m] of contents [E, n, m], inputs int64 [E]."""
        extended = torch.cat((contents, self.values[inputs][:, blocks]), dim=-1)
        m, source = contents.shape[-1], self.source[inputs][:, blocks]
        own = torch.arange(m, 2 * m, device=source.device)  # where a channel's own value stands
        moved = extended.gather(-1, torch.where(source == m, own, source))
        return moved * self.sign[inputs][:, blocks] + 0.0  # no negative zeros


@torch.no_grad()
def read_maps(block: Any, x: Tensor) -> HardMaps:
    """The maps of a hard block's mixer for inputs x [I, dim] of the block."""
    mixer, u = block.mixer, block.mixer_norm(x)
    gates, values = mixer.raw_gates(u), mixer.raw_values(u)
    rows, weights = (normalize(gates, mixer.normalization, hard=hard) for hard in (True, False))
    two = weights.abs().topk(2, dim=-1).values
    gaps = (two[..., 0] - two[..., 1]).amin(0)  # [N] or [N, m]
    source, sign = rows.abs().argmax(-1), rows.sum(-1).sign()
    initial = mixer.initial_state(1)[0] + 0.0
    if isinstance(mixer, HLRU):
        source, sign, values = _windows(source, sign, values, initial.shape[-1])
    return HardMaps(source, sign, values.to(initial.dtype), initial, gaps.view(len(initial), -1).amin(1))


def _windows(source: Tensor, sign: Tensor, values: Tensor, m: int) -> tuple[Tensor, ...]:
    """The rows of windows [I, N, m], newest first: those of the newest states, given, and of others, which move on."""
    moved = torch.arange(m - 1, device=source.device).expand(*source.shape, m - 1)
    others = (moved, torch.ones_like(moved).to(sign.dtype), torch.zeros_like(moved).to(values.dtype))
    return tuple(
        torch.cat((new[..., None], old), -1) for new, old in zip((source, sign, values), others, strict=True)
    )


@torch.no_grad()
def set_at_rest(mixer: Any, blocks: Sequence[int], contents: Tensor) -> None:
    """Let blocks (channels of an H-LRU) keep constant contents for ever, in place.

    Their rows copy their own channel and read nothing of the input. contents: [N, m], where they stay; without a
    learned initial state they stay at zero.
    """
    chosen, columns = list(blocks), mixer._gate_layout[0]
    if mixer.selective:
        mixer.gates.weight.view(*mixer._gate_layout, -1)[:, chosen] = 0.0
    gates = mixer.gates.bias.view(*mixer._gate_layout) if mixer.selective else mixer.free_gates
    gates[:, chosen] = 0.0
    if isinstance(mixer, HLRU):
        gates[0, chosen] = 1.0
        contents = contents.mean(-1, keepdim=True).expand_as(contents)
    else:
        gates[:, chosen] = F.one_hot(torch.arange(columns - 1), columns).T[:, None].to(gates)
    if mixer.initial is not None:
        mixer.initial[chosen] = contents[chosen].to(mixer.initial.dtype)
