"""`learn_automaton` in a run folder, which everything that reads runs accepts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from statemix.analysis import Proof, prove
from statemix.tasks.tracking import AutomatonTask
from statemix.training.build import build_autocast, build_device, build_task, eval_examples, eval_lengths
from statemix.training.checkpoint import save_weights
from statemix.training.config import Config, ModelConfig
from statemix.training.data import evaluation_set
from statemix.training.evaluation import evaluate
from statemix.training.files import write_json
from statemix.training.folder import RunFolder, run_id
from statemix.training.learning import (
    Learned,
    check_automaton,
    learn_automaton,
    mixer_arguments,
    training_config,
)
from statemix.training.loop import Summary, costs
from statemix.training.metrics import MetricsFile
from statemix.training.progress import Progress
from statemix.training.resolve import check
from statemix.training.runs import load_run


def learn_config(
    file: str | Path, *, block_size: int | None = None, num_blocks: int = 16, dim: int = 128, depth: int = 1,
    steps: int = 10_000, batch_size: int = 128, length: int = 16, lr: float = 2e-3, seed: int = 0,
) -> Config:  # fmt: skip
    """The configuration of a run that learns the automaton of a TOML or JSON file; arguments as `learn_automaton`.

    Errors: ValueError naming what is wrong, OSError if the file cannot be read.
    """
    from statemix import __version__

    training = training_config(steps=steps, batch_size=batch_size, length=length, lr=lr, seed=seed)
    options = AutomatonTask.resolve({"file": str(file), "length": length})
    arguments = mixer_arguments(AutomatonTask(**options).automaton(), block_size, num_blocks)
    config = Config(
        name="learn", task={"name": AutomatonTask.name, **options}, mixer={"name": "bdlru", **arguments},
        model=ModelConfig(dim=dim, depth=depth, mlp=False), training=training, version=__version__,
    )  # fmt: skip
    check(config)
    return config


def learn_run(
    config: Config, folder: str | Path, *, max_pairs: int = 10_000, progress: bool | None = None
) -> tuple[Summary, Proof]:
    """Learn the automaton of a `learn_config` in a folder; returns the summary of the run, and the proof.

    The folder is filled at the end, so a run that is stopped leaves nothing in it but its lock. A finished run is
    proved again, not trained. The summary's status is "stopped_early" for a run that is proved, else "finished".
    Errors: ValueError for the automaton; RunError for the folder, as `train`.
    """
    automaton, files = build_task(config).automaton(), RunFolder(folder)
    check_automaton(automaton, max_pairs)
    files.prepare(config, resume=True)
    with files.locked() as guard:
        if files.config.exists():
            files.keep(config)
        if (done := files.finished()) is not None:
            return done, prove(load_run(folder)[1], automaton, max_pairs=max_pairs)
        began, lines = time.perf_counter(), list[dict[str, Any]]()
        with Progress(progress, "learning, step", 0, config.training.steps) as bar:

            def told(step: int, numbers: dict[str, float]) -> None:
                lines.append({"kind": "train", "step": step, **numbers})
                bar.tell(step, **numbers)

            learned = _learn(config, max_pairs, told)
        summary = _save(config, files, guard, learned, lines, began)
    return summary, learned.proof


def _learn(config: Config, max_pairs: int, told: Any) -> Learned:
    training, model, mixer = config.training, config.model, config.mixer
    return learn_automaton(
        build_task(config).automaton(), block_size=mixer["block_size"], num_blocks=mixer["num_blocks"], dim=model.dim,
        depth=model.depth, steps=training.steps, batch_size=training.batch_size, length=training.train_lengths[-1],
        lr=training.lr, seed=training.seed, max_pairs=max_pairs, told=told,
    )  # fmt: skip


def _save(
    config: Config, files: RunFolder, guard: Callable[[], None], learned: Learned, lines: list[dict[str, Any]],
    began: float,
) -> Summary:  # fmt: skip
    """Metrics, weights and summary, each whole, the summary last."""
    guard()
    files.keep(config)
    files.remove_leftovers()
    run, accuracy = run_id(config.to_dict()), _accuracy(config, learned)
    metrics = MetricsFile(files.metrics, 0, None)
    for line in lines:
        metrics.append(**line)
    _, digest = metrics.sync()
    metrics.close()
    save_weights(files.weights, learned.model, run)
    task = build_task(config)
    summary = {
        "status": "stopped_early" if learned.proved else "finished",
        "step": learned.steps,
        **costs(learned.model, task.generate(1).inputs, task.length),
        "accuracy": accuracy,
        "best_accuracy": None,
        "seconds": round(time.perf_counter() - began, 3),
        "device": "cpu",
        "capture": "off",
        "torch": str(torch.__version__),
        "run": run,
        "metrics_sha256": digest,
        "proved": learned.proved,
        "pairs": learned.proof.pairs,
        "attempts": learned.attempts,
        "train_length": learned.length,
    }
    guard()
    write_json(files.summary, summary)
    return summary


def _accuracy(config: Config, learned: Learned) -> dict[str, float]:
    """On the test split, by length."""
    training, task, device = config.training, build_task(config), build_device(config)
    accuracy = {}
    for length in eval_lengths(config, task):
        count = eval_examples(config, task, length)
        examples = evaluation_set(task, length, "test", count, training.seed, device)
        result = evaluate(learned.model, examples, training.batch_size, build_autocast(training, device))
        accuracy[str(length)] = result["accuracy"]
    learned.model.eval()
    return accuracy
