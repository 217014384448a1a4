"""What a hard layer does with its inputs: which channel copies which, and which takes a new value; blocks at rest."""

from __future__ import annotations

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
    r"""What each of I inputs does with the C = N m channels of a layer: $h_i \leftarrow sign_i \cdot h_{source_i}$.

    A source of -1 stands for the value that the input brings; a sign of 0 for a row of zeros.

    source: int64 [I, C]. sign: [I, C]. values: [I, C]. initial: [C]. gaps: [C], how far the largest weight of a row is
    from the next at least. needs: bool [C, C], the channels whose contents channel i (row) may come to hold, itself
    among them.
    """

    source: Tensor
    sign: Tensor
    values: Tensor
    initial: Tensor
    gaps: Tensor
    needs: Tensor

    def step(self, contents: Tensor, inputs: Tensor, channels: Tensor) -> Tensor:
        """The contents of channels int64 [c], which need no others, behind inputs int64 [E]: [E, c] of [E, c]."""
        place = torch.zeros(len(self.initial), dtype=torch.int64, device=channels.device)
        place[channels] = torch.arange(len(channels), device=channels.device)
        source = self.source[inputs][:, channels]
        copied = contents.gather(1, place[source.clamp(min=0)])
        moved = torch.where(source < 0, self.values[inputs][:, channels], copied)
        return moved * self.sign[inputs][:, channels] + 0.0  # no negative zeros


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
    (blocks, m), window = initial.shape, isinstance(mixer, HLRU)
    if window:
        source, sign, values = _windows(source, sign, values, m)
        gaps = gaps[:, None].expand(-1, m)
    needs = torch.eye(m, dtype=torch.bool, device=x.device) | window | _one_hot(source, m)
    for _ in range(m):
        needs = (needs.float() @ needs.float()) > 0
    first = m * torch.arange(blocks, device=x.device)[:, None]
    source = torch.where(source == m, -1, source + first)
    source, sign, values = (one.flatten(1) for one in (source, sign, values.to(initial.dtype)))
    whole = torch.block_diag(*needs.float()) > 0
    return HardMaps(source, sign, values, initial.flatten(), gaps.flatten(), whole)


def _one_hot(source: Tensor, m: int) -> Tensor:
    """Which channels [N, m, m] each channel copies for any input, of sources [I, N, m]."""
    return torch.stack([(source == j).any(0) for j in range(m)], dim=-1)


def _windows(source: Tensor, sign: Tensor, values: Tensor, m: int) -> tuple[Tensor, ...]:
    """The rows of windows [I, N, m], newest first: those of the newest states, given, and of others, which move on."""
    moved = torch.arange(m - 1, device=source.device).expand(*source.shape, m - 1)
    others = (moved, torch.ones_like(moved).to(sign.dtype), torch.zeros_like(moved).to(values.dtype))
    return tuple(
        torch.cat((new[..., None], old), -1) for new, old in zip((source, sign, values), others, strict=True)
    )


@torch.no_grad()
def set_at_rest(mixer: Any, channels: Tensor, contents: Tensor) -> None:
    """Let channels keep constant contents for ever, in place; of an H-LRU whole windows.

    Their rows copy themselves and read nothing of the input. channels: bool [N, m]. contents: [N, m], where they stay;
    without a learned initial state they stay at zero.
    """
    columns = mixer._gate_layout[0]
    itself = F.one_hot(torch.arange(columns - 1), columns)  # [row, column]
    if isinstance(mixer, HLRU):
        chosen, itself = channels[:, 0], itself[0].expand(len(channels), -1)
        contents = contents.mean(-1, keepdim=True).expand_as(contents)
    else:
        chosen, itself = channels, itself.expand(len(channels), -1, -1)
    if mixer.selective:
        mixer.gates.weight.view(*mixer._gate_layout, -1)[:, chosen] = 0.0
    gates = mixer.gates.bias.view(*mixer._gate_layout) if mixer.selective else mixer.free_gates
    gates[:, chosen] = itself.to(gates)[chosen].T
    if mixer.initial is not None:
        mixer.initial[channels] = contents[channels].to(mixer.initial.dtype)
