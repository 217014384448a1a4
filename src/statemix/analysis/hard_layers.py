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


TIE = 1e-4
"""Weights that differ by less may change places when a product of matrices is rounded otherwise."""


@dataclass(frozen=True)
class HardMaps:
    r"""What each of I inputs does with the C = N m channels of a layer: $h_i \leftarrow sign_i \cdot h_{source_i}$.

    A source of -1 stands for the value that the input brings; a sign of 0 for a row of zeros.

    source, sign: of each row's largest weight and of the next, where that is as large within `TIE`; else the same
    twice; two of [I, C]. values: [I, C]. initial: [C]. gaps: [C], how far the largest weight of a row is from the next
    at least. needs: bool [C, C], the channels whose contents channel i (row) may come to hold, itself among them.
    unsure: bool [C], whether there is a row with three weights that are as large.
    """

    source: tuple[Tensor, Tensor]
    sign: tuple[Tensor, Tensor]
    values: Tensor
    initial: Tensor
    gaps: Tensor
    needs: Tensor
    unsure: Tensor

    def step(self, contents: Tensor, inputs: Tensor, channels: Tensor, choice: int = 0) -> Tensor:
        """The contents of channels int64 [c], which need no others, behind inputs int64 [E]: [E, c] of [E, c].

        choice: 1 for the second of two weights that are as large.
        """
        place = torch.zeros(len(self.initial), dtype=torch.int64, device=channels.device)
        place[channels] = torch.arange(len(channels), device=channels.device)
        source = self.source[choice][inputs][:, channels]
        copied = contents.gather(1, place[source.clamp(min=0)])
        moved = torch.where(source < 0, self.values[inputs][:, channels], copied)
        return moved * self.sign[choice][inputs][:, channels] + 0.0  # no negative zeros


@torch.no_grad()
def read_maps(block: Any, x: Tensor) -> HardMaps:
    """The maps of a hard block's mixer for inputs x [I, dim] of the block."""
    mixer, u = block.mixer, block.mixer_norm(x)
    gates, values = mixer.raw_gates(u), mixer.raw_values(u)
    rows, weights = (normalize(gates, mixer.normalization, hard=hard) for hard in (True, False))
    initial = mixer.initial_state(1)[0] + 0.0
    m, window = initial.shape[1], isinstance(mixer, HLRU)
    choices, gaps, unsure = _choices(rows, weights)
    if window:
        choices, values = [_windows(*choice, m) for choice in choices], F.pad(values[..., None], (0, m - 1))
        gaps, unsure = (one[:, None].expand(-1, m) for one in (gaps, unsure))
    needs = torch.eye(m, dtype=torch.bool, device=x.device) | window
    for source, _ in choices:
        needs = needs | torch.stack([(source == j).any(0) for j in range(m)], dim=-1)  # [N, m, m]
    for _ in range(m):
        needs = (needs.float() @ needs.float()) > 0
    first = m * torch.arange(len(initial), device=x.device)[:, None]
    source, second = (torch.where(one == m, -1, one + first).flatten(1) for one, _ in choices)
    sign, other = (one.flatten(1) for _, one in choices)
    return HardMaps(
        (source, second), (sign, other), values.to(initial.dtype).flatten(1), initial.flatten(), gaps.flatten(),
        torch.block_diag(*needs.float()) > 0, unsure.flatten(),
    )  # fmt: skip


Choice = tuple[Tensor, Tensor]
"""The source and the sign of every row [I, N, ...]."""


def _choices(rows: Tensor, weights: Tensor) -> tuple[list[Choice], Tensor, Tensor]:
    """Of hard rows and soft ones: what each row copies and what it could copy as well; the smallest distances of a
    row's two largest weights [N, ...]; whether a third is as large."""
    first = rows.abs().argmax(-1)
    size, index = weights.abs().topk(min(3, weights.shape[-1]), dim=-1)
    gaps = size[..., 0] - size[..., 1]
    sign = rows.sum(-1).sign()
    tied = (gaps < TIE) & (sign != 0)
    second = torch.where(tied, torch.where(index[..., 0] == first, index[..., 1], index[..., 0]), first)
    other = torch.where(tied, weights.gather(-1, second[..., None])[..., 0].sign(), sign)
    third = tied & (size[..., 0] - size[..., -1] < TIE) if size.shape[-1] > 2 else torch.zeros_like(tied)
    return [(first, sign), (second, other)], gaps.amin(0), third.any(0)


def _windows(source: Tensor, sign: Tensor, m: int) -> Choice:
    """The rows of windows [I, N, m], newest first: those of the newest states, given, and of others, which move on."""
    moved = torch.arange(m - 1, device=source.device).expand(*source.shape, m - 1)
    return torch.cat((source[..., None], moved), -1), torch.cat((sign[..., None], torch.ones_like(moved)), -1)


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
