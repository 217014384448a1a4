"""Training small models on the synthetic tasks: configurations, the loop, runs on disk.

from statemix.training import resolve_config, train

config = resolve_config("demo-bdlru", overrides=["training.steps=200"])
summary = train(config, "runs/demo")
"""

from statemix.training.build import (
    build_autocast,
    build_device,
    build_model,
    build_optimizer,
    build_task,
    captures_of,
)
from statemix.training.config import RUNTIME_KEYS, Config, ModelConfig, TrainingConfig, flatten
from statemix.training.files import BusyError, RunError
from statemix.training.folder import FINAL, RunFolder
from statemix.training.learn_run import learn_config, learn_run
from statemix.training.learning import CLOSED, SEED_STRIDE, Learned, learn_automaton
from statemix.training.loop import train, train_concurrently
from statemix.training.metrics import check_metrics
from statemix.training.presets import PRESETS, SUMMARIES
from statemix.training.resolve import check, parse_override, resolve_config, shorten_warmup
from statemix.training.runs import evaluate_run, load_config, load_run
from statemix.training.settings import groups, to_toml
from statemix.training.signals import HANGUP, LEAVE, leaving
from statemix.training.steps import Steps, TrainingState, build_state, build_step, ignore_compiler_warnings

__all__ = [
    "CLOSED", "FINAL", "HANGUP", "LEAVE", "PRESETS", "RUNTIME_KEYS", "SEED_STRIDE", "SUMMARIES", "BusyError",
    "Config", "Learned", "ModelConfig", "RunError", "RunFolder", "Steps", "TrainingConfig", "TrainingState",
    "build_autocast", "build_device", "build_model", "build_optimizer", "build_state", "build_step", "build_task",
    "captures_of", "check", "check_metrics", "evaluate_run", "flatten", "groups", "ignore_compiler_warnings",
    "learn_automaton", "learn_config", "learn_run", "leaving", "load_config", "load_run", "parse_override",
    "resolve_config", "shorten_warmup", "to_toml", "train", "train_concurrently",
]  # fmt: skip
