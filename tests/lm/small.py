"""A small model over bytes, and the losses that define what an evaluation adds up."""

from __future__ import annotations

import numpy as np
import torch

from statemix import BDLRU
from statemix.models import LanguageModel


def model(vocab_size=257, seed=0, **options):
    """Weights ten times as large as drawn, so that predictions differ."""
    torch.manual_seed(seed)
    made = LanguageModel(vocab_size, 16, lambda dim: BDLRU(dim, block_size=4), **options).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return made


def losses(one, tokens, before):
    """Nats of `tokens` (a sequence), each predicted from all before it, `before` first; one forward."""
    row = torch.from_numpy(np.concatenate([[before], tokens]).astype(np.int64))[None]
    with torch.no_grad():
        logits, _ = one(row[:, :-1])
    return -logits.log_softmax(-1).gather(-1, row[:, 1:, None])[0, :, 0]
