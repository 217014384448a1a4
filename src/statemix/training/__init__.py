"""Training small models on the synthetic tasks: configurations, the loop, runs on disk."""

from statemix.training.config import Config, ModelConfig, TrainingConfig
from statemix.training.files import RunError
from statemix.training.loop import train
from statemix.training.many import train_many
from statemix.training.presets import PRESETS, SUMMARIES
from statemix.training.resolve import resolve_config
from statemix.training.runs import evaluate_run, load_config, load_run

__all__ = [
    "PRESETS",
    "SUMMARIES",
    "Config",
    "ModelConfig",
    "RunError",
    "TrainingConfig",
    "evaluate_run",
    "load_config",
    "load_run",
    "resolve_config",
    "train",
    "train_many",
]
