"""Language models: trained on packs of text by transformers' Trainer (extra `lm`), evaluated, sampled from.

from statemix.lm import resolve_lm_config, train_language_model

config = resolve_lm_config("tiny", overrides=["data.pack=packs/stdlib"])
summary = train_language_model(config, "runs/tiny")
"""

from statemix.lm.build import build_language_model, compile_blocks, count_flops, matmul_rate
from statemix.lm.config import LMConfig, resolve_lm_config
from statemix.lm.evaluation import ContextLoss, Evaluation, evaluate
from statemix.lm.generation import Rates, Sampling, generate
from statemix.lm.harness import fast_tokenizer, harness_model, run_tasks
from statemix.lm.loading import (
    Loaded,
    as_hugging_face,
    folder_tokenizer,
    load_model,
    open_pack,
    save_tokenizer,
)
from statemix.lm.loss import LanguageModelLoss, chunked_cross_entropy
from statemix.lm.presets import LM_PRESETS
from statemix.lm.runs import load_language_model
from statemix.lm.train import train_language_model

__all__ = [
    "LM_PRESETS", "ContextLoss", "Evaluation", "LMConfig", "LanguageModelLoss", "Loaded", "Rates",
    "Sampling", "as_hugging_face", "build_language_model", "chunked_cross_entropy", "compile_blocks",
    "count_flops", "evaluate",
    "fast_tokenizer", "folder_tokenizer", "generate", "harness_model", "load_language_model", "load_model",
    "matmul_rate",
    "open_pack", "resolve_lm_config", "run_tasks", "save_tokenizer", "train_language_model",
]  # fmt: skip
