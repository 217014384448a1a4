"""Loss and accuracy of a model on a set of instances."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from statemix.tasks import IGNORED, Examples

Scores = dict[str, float]


def scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean loss, correct positions, counted positions) of logits [B, T, V] and targets [B, T]."""
    flat, wanted = logits.flatten(0, 1).float(), targets.flatten()
    counted = wanted != IGNORED
    correct = (flat.argmax(-1) == wanted) & counted
    return F.cross_entropy(flat, wanted, ignore_index=IGNORED), correct.sum(), counted.sum()


def macro_accuracy(predictions: Tensor, targets: Tensor, classes: int) -> float:
    """Mean over the classes that occur, as target or prediction, of the fraction of their targets that is right.

    predictions, targets: [...] integers, IGNORED targets left out. A class predicted but never asked for counts 0.
    """
    kept = targets != IGNORED
    predictions, targets = predictions[kept], targets[kept]
    asked = torch.bincount(targets, minlength=classes)
    right = torch.bincount(targets[predictions == targets], minlength=classes)
    occurs = (asked + torch.bincount(predictions, minlength=classes)) > 0
    if not occurs.any():
        return 0.0
    return float((right[occurs] / asked[occurs].clamp(min=1)).double().mean())


@torch.no_grad()
def evaluate(
    model: nn.Module, examples: Examples, batch_size: int, autocast: AbstractContextManager[Any]
) -> Scores:
    """{"loss", "accuracy", "macro_accuracy"}: means over positions, and the paper's per-class mean within batches.

    macro_accuracy averages the batches' values, weighted by their rows. An empty set gives zeros.
    """
    model.eval()
    loss, macro, correct, counted = 0.0, 0.0, 0, 0
    rows = len(examples.inputs)
    for start in range(0, rows, batch_size):
        inputs, targets = (column[start : start + batch_size] for column in examples)
        with autocast:
            logits, _ = model(inputs)
        batch_loss, batch_correct, batch_counted = (x.item() for x in scores(logits, targets))
        loss += batch_loss * batch_counted if batch_counted else 0.0
        correct, counted = correct + int(batch_correct), counted + int(batch_counted)
        macro += macro_accuracy(logits.argmax(-1), targets, logits.shape[-1]) * len(inputs)
    model.train()
    return {
        "loss": loss / max(counted, 1),
        "accuracy": correct / max(counted, 1),
        "macro_accuracy": macro / max(rows, 1),
    }
