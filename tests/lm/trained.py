"""A small model over bytes, and the losses that define what an evaluation adds up."""

from __future__ import annotations

import numpy as np
import torch

from statemix import BDLRU
from statemix.lm import build_language_model, resolve_lm_config, save_tokenizer
from statemix.lm.config import RUNTIME_KEYS
from statemix.lm.train import fill_in
from statemix.models import LanguageModel
from statemix.training.checkpoint import save_weights
from statemix.training.files import write_json
from statemix.training.folder import run_id


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


def leave_run(folder, pack):
    """What a finished run on a pack leaves in its folder, its weights ten times as large as drawn."""
    settings = [f"data.pack={pack.folder}", "data.length=64", "model.dim=16", "training.seed=1"]
    config = fill_in(resolve_lm_config("tiny", overrides=settings), pack)
    trained = build_language_model(config)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    write_json(folder / "config.json", config.to_dict())
    save_weights(folder / "model.safetensors", trained, run_id(config.to_dict(), RUNTIME_KEYS))
    save_tokenizer(folder, pack.tokenizer)
    return folder
