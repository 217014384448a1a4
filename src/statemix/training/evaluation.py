"""Loss and accuracy of a model on a set of instances."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.models import LanguageModel
from statemix.tasks import IGNORED, Examples

Scores = dict[str, float]

PIECE = 4096
"""Positions that a language model reads at once: what it needs meanwhile does not grow with the test length."""


def scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss [], and float64 [3]: that loss, correct and counted positions, of logits [B, T, V], targets [B, T]."""
    flat, wanted = logits.flatten(0, 1).float(), targets.flatten()
    counted = wanted != IGNORED
    correct = (flat.argmax(-1) == wanted) & counted
    loss = F.cross_entropy(flat, wanted, ignore_index=IGNORED)
    return loss, torch.stack([loss.detach().double(), correct.sum().double(), counted.sum().double()])


def macro_accuracy(predictions: Tensor, targets: Tensor, classes: int) -> Tensor:
    """float64 []: the mean, over the classes that occur as target or prediction, of the share of targets that is right.

    predictions, targets: [...] integers, IGNORED targets left out. A class predicted but never a target counts 0.
    """
    predictions, targets = predictions.flatten(), targets.flatten()
    kept = targets != IGNORED

    def tally(tokens: Tensor, chosen: Tensor) -> Tensor:
        places = torch.where(chosen, tokens, classes)  # one place more, for what is left out
        counts = torch.zeros(classes + 1, dtype=torch.int64, device=tokens.device)
        return counts.scatter_add_(0, places, torch.ones_like(places))[:-1]

    wanted, right = tally(targets, kept), tally(targets, kept & (predictions == targets))
    occurs = (wanted + tally(predictions, kept)) > 0
    return (right.double() / wanted.clamp(min=1)).sum() / occurs.sum().clamp(min=1)


def evaluate(
    model: nn.Module, examples: Examples, batch_size: int, autocast: AbstractContextManager[Any]
) -> Scores:
    """{"loss", "accuracy", "macro_accuracy"}: means over positions, and the batches' per-class means by their rows."""
    return means(sums(model, examples, batch_size, autocast), len(examples.inputs))


@torch.no_grad()
def sums(
    model: nn.Module, examples: Examples, batch_size: int, autocast: AbstractContextManager[Any]
) -> Tensor:
    """float64 [4] on the device, which is not waited for: sums of loss, correct, counted, rows times macro accuracy."""
    model.eval()
    total = torch.zeros(4, dtype=torch.float64, device=examples.inputs.device)
    for start in range(0, len(examples.inputs), batch_size):
        inputs, targets = (column[start : start + batch_size] for column in examples)
        with autocast:
            logits = _logits(model, inputs)
        loss, correct, counted = scores(logits, targets)[1]
        macro = macro_accuracy(logits.argmax(-1), targets, logits.shape[-1]) * len(inputs)
        loss = torch.where(counted > 0, loss * counted, 0.0)
        total += torch.stack([loss, correct, counted, macro])
    model.train()
    return total


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """[B, T, V] of inputs [B, T]; a language model reads long ones in pieces, with the state carried."""
    if not isinstance(model, LanguageModel) or inputs.shape[1] <= PIECE:
        return model(inputs)[0]  # type: ignore[no-any-return]
    logits, states = list[Tensor](), None
    for piece in inputs.split(PIECE, dim=1):
        part, states = model(piece, states)
        logits.append(part)
    return torch.cat(logits, dim=1)


def means(total: Tensor, rows: int) -> Scores:
    """The scores of `rows` instances from their `sums`; waits for the device."""
    loss, correct, counted, macro = total.tolist()
    return {
        "loss": loss / max(counted, 1),
        "accuracy": correct / max(counted, 1),
        "macro_accuracy": macro / max(rows, 1),
    }
