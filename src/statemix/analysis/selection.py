"""What hard rows select: which channels are copied, which take the input, what is left of a state after some tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from statemix.analysis.spectra import inputs_of
from statemix.nn import BDLRU
from statemix.ops import normalize
from statemix.tasks import IGNORED

NOTHING = -1
"""In place of a column: the row is zero, or what was there is lost."""


def selected_columns(gates: Tensor, normalization: str = "softmax") -> Tensor:
    """The column that every row of raw gates selects when rows are hard.

    Args:
        gates: [..., m+1]; the first m columns are channels of the state before, the last is the input.
        normalization: A key of `statemix.ops.NORMALIZATIONS` but "none".

    Returns:
        int64 [...]: 0 … m - 1 copies that channel, m takes the input, -1 is a row of zeros.

    Example:
        >>> selected_columns(torch.tensor([[0.0, 2.0, 1.0], [0.0, 1.0, 3.0]]))
        tensor([1, 2])
    """
    rows = normalize(gates.detach(), normalization, hard=True).abs()
    return torch.where(rows.amax(-1) > 0, rows.argmax(-1), NOTHING)


def select(model: nn.Module, tokens: Tensor) -> list[Tensor]:
    """What the rows of every BDLRU of a model select while it reads tokens [B, T]: int64 [B, T, N, m] each.

    Rows are read as hard ones whether the layer's are or not. ValueError for a model without a BDLRU.
    """
    layers = [module for module in model.modules() if isinstance(module, BDLRU)]
    if not layers:
        raise ValueError("model: it has no BDLRU, expected at least one")
    with torch.no_grad():
        inputs = inputs_of(model, layers, tokens)
        pairs = zip(layers, inputs, strict=True)
        return [selected_columns(layer.raw_gates(x), layer.normalization) for layer, x in pairs]


class SelectionSummary(NamedTuple):
    """Shares over tokens and blocks of one layer, and the histogram of its columns."""

    histogram: Tensor
    """float64 [m+1]: the share of rows that select each column, the input last."""
    copied: float
    """Rows that copy a channel."""
    taken: float
    """Rows that take the input."""
    permuting: float
    """Maps (a block at a token) whose rows select every channel once."""
    colliding: float
    """Maps two rows of which select the same channel, so that another is lost."""


def selection_summary(selected: Tensor) -> SelectionSummary:
    """Shares of what rows select, for int64 [..., m] as `selected_columns` returns it.

    Example:
        >>> selection_summary(torch.tensor([[0, 1], [1, 1], [0, 2]])).colliding
        0.3333333333333333
    """
    m = selected.shape[-1]
    histogram = torch.stack([(selected == column).double().mean() for column in range(m + 1)])
    taken, rank = float(histogram[-1]), ranks(selected)
    copies = ((selected >= 0) & (selected < m)).sum(-1)
    return SelectionSummary(
        histogram, float(histogram[:-1].sum()), taken, float((rank == m).double().mean()),
        float((rank < copies).double().mean()),
    )  # fmt: skip


def ranks(selected: Tensor) -> Tensor:
    """How many channels of the state before are still there after a map int64 [..., m]: int64 [...]."""
    columns = torch.arange(selected.shape[-1], device=selected.device)
    return (selected.unsqueeze(-1) == columns).any(-2).sum(-1)


def ranks_along(selected: Tensor) -> Tensor:
    """How many channels of the first state are left after each token, for maps int64 [B, T, N, m]: int64 [B, T, N].

    A block at 0 has forgotten its first state; one that stays at m only permutes it.

    Example:
        >>> ranks_along(torch.tensor([[[[1, 0]], [[1, 1]], [[2, 0]]]]))
        tensor([[[2],
                 [1],
                 [1]]])
    """
    m = selected.shape[-1]
    origins, left = torch.arange(m, device=selected.device).expand_as(selected[:, 0]), []
    for maps in selected.unbind(1):
        lost = (maps < 0) | (maps >= m)
        origins = origins.gather(-1, maps.masked_fill(lost, 0)).masked_fill(lost, NOTHING)
        left.append(ranks(origins))
    return torch.stack(left, 1)


def collision_penalty(rows: Tensor) -> Tensor:
    r"""A penalty on channels that several rows of a block copy, since each such copy loses another channel.

    The mean over channels j, blocks and tokens of $(\sum_i rows_{ij} - 1)_+^2$; 0 where a block permutes its channels.
    How many rows take the input is left open.

    Args:
        rows: [..., m, m+1], the input last. Gradients of `normalize(gates, hard=True)` are straight-through.

    Example:
        >>> collision_penalty(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
        tensor(0.5000)
    """
    return (rows[..., :-1].sum(-2) - 1).clamp(min=0.0).square().mean()


@torch.no_grad()
def accuracy_by_position(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """The share of right answers at every position: float64 [T] for int64 tokens and targets [B, T].

    A position without any target has NaN.
    """
    right, counted = model(tokens)[0].argmax(-1) == targets, targets != IGNORED
    return (right & counted).double().sum(0) / counted.double().sum(0)


def gradient_by_position(model: nn.Module, tokens: Tensor, targets: Tensor) -> list[Tensor]:
    """How far the last answer's error reaches back: for every BDLRU the norm of its gradient at each input, [T].

    The norm of d loss_T / d x_t, where x_t is what the layer reads at t, over the batch; loss_T is the mean cross
    entropy at the last position. Gradients are straight-through where rows are hard.
    """
    layers = [module for module in model.modules() if isinstance(module, BDLRU)]
    seen: dict[nn.Module, Tensor] = {}

    def keep(
        layer: nn.Module, arguments: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        x = arguments[0] if arguments[0].requires_grad else arguments[0].detach().requires_grad_()
        seen[layer] = x
        return (x, *arguments[1:]), kwargs

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    try:
        with torch.enable_grad():
            logits = model(tokens)[0]
    finally:
        for hook in hooks:
            hook.remove()
    loss = nn.functional.cross_entropy(logits[:, -1], targets[:, -1])
    grads = torch.autograd.grad(loss, [seen[layer] for layer in layers])
    return [grad.square().sum((0, 2)).sqrt() for grad in grads]


def jump(steps: Sequence[int], accuracy: Sequence[float]) -> tuple[int, float]:
    """The step by which a run's accuracy rose most since the check before, and by how much.

    Example:
        >>> jump([50, 100, 150], [0.1, 0.8, 0.9])
        (100, 0.7)
    """
    if len(steps) != len(accuracy) or len(steps) < 2:
        raise ValueError(
            f"accuracy: got {len(accuracy)} values for {len(steps)} steps, expected as many, and two at least"
        )
    rises = [after - before for before, after in zip(accuracy[:-1], accuracy[1:], strict=True)]
    best = max(range(len(rises)), key=rises.__getitem__)
    return steps[best + 1], round(rises[best], 6)
