"""Language models that were trained: read back from their folders."""

from __future__ import annotations

from pathlib import Path

import torch

from statemix.lm.build import build_language_model
from statemix.lm.config import RUNTIME_KEYS, LMConfig
from statemix.models import LanguageModel
from statemix.training.checkpoint import load_weights
from statemix.training.files import MissingFileError, RunError, read_json
from statemix.training.folder import run_id


def load_language_model(
    folder: str | Path, device: torch.device | str = "cpu"
) -> tuple[LMConfig, LanguageModel]:
    """The configuration and the trained model of a run that is over, in evaluation mode.

    RunError when a file is missing, damaged or of another run.
    """
    path = Path(folder)
    try:
        config = LMConfig.from_dict(read_json(path / "config.json"))
    except ValueError as error:
        if isinstance(error, MissingFileError):
            raise
        raise RunError(f"{path / 'config.json'} is no configuration of a language model: {error}") from None
    model = build_language_model(config)
    load_weights(path / "model.safetensors", model, run_id(config.to_dict(), RUNTIME_KEYS))
    return config, model.to(device).eval()
