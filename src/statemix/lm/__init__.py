"""Training language models on packs of text: presets, transformers' Trainer as the engine (extra `lm`).

from statemix.lm import resolve_lm_config, train_language_model

config = resolve_lm_config("tiny", overrides=["data.pack=packs/stdlib"])
summary = train_language_model(config, "runs/tiny")
"""

from statemix.lm.build import build_language_model, count_flops
from statemix.lm.config import LMConfig, resolve_lm_config
from statemix.lm.loss import LanguageModelLoss, chunked_cross_entropy
from statemix.lm.presets import LM_PRESETS
from statemix.lm.runs import load_language_model
from statemix.lm.train import train_language_model

__all__ = [
    "LM_PRESETS", "LMConfig", "LanguageModelLoss", "build_language_model", "chunked_cross_entropy", "count_flops",
    "load_language_model", "resolve_lm_config", "train_language_model",
]  # fmt: skip
