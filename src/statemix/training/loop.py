"""The training loop: plain, resumable to the bit, and honest about how it ended."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statemix.analysis.accounting import flops_per_step, mixer_parameters, parameters, state_size
from statemix.training.build import (
    autocast_of,
    device_of,
    eval_lengths,
    learning_rate,
    model_of,
    optimizer_of,
    task_of,
)
from statemix.training.checkpoint import load_checkpoint, require_safetensors, save_checkpoint, save_weights
from statemix.training.config import Config
from statemix.training.data import TrainingSet, evaluation_set
from statemix.training.evaluation import evaluate, scores
from statemix.training.events import events_of
from statemix.training.files import MetricsFile, write_json
from statemix.training.folder import RunFolder
from statemix.training.interruption import Interruption
from statemix.training.progress import Progress, progress_of
from statemix.training.resolve import check


def train(
    config: Config, folder: str | Path, *, progress: bool | None = None, resume: bool = True
) -> dict[str, Any]:
    """Train a run in its folder, or go on where it was interrupted; returns the summary.

    progress: True shows a bar, False none, None one when standard error is a terminal. resume: False refuses a
    folder that holds a run. A finished run returns its summary at once. On the CPU, with one number
    of threads, a run killed at any moment and resumed writes the same metrics and weights, bit for bit, as one that
    was not. SIGINT and SIGTERM save and return with status "interrupted"; a loss that is not finite ends the run
    with status "diverged".
    Files: see docs/design.md, "Runs". Errors: ValueError for the configuration, ImportError for a missing extra,
    RunError for the folder, a checkpoint or the disk.
    """
    check(config)
    require_safetensors()
    device = device_of(config)
    run = RunFolder(folder)
    run.prepare(config, resume)
    with run.locked():
        run.remove_leftovers()
        done = run.finished()
        if done is None:
            return _Run(config, run, device).go(progress)
        run.remove_checkpoint()  # a kill may have come between the summary and this
        return done


class _Run:
    """One run on its way: what has to be kept between steps, and what is done with it."""

    def __init__(self, config: Config, folder: RunFolder, device: torch.device) -> None:
        self.config, self.training, self.folder, self.device = config, config.training, folder, device
        self.task = task_of(config)
        self.model: nn.Module = model_of(config, self.task).to(device)
        self.optimizer = optimizer_of(self.model, config.training)
        self.autocast = autocast_of(config.training, device)
        # loss, correct positions and counted positions since the last log
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)
        self.position: dict[str, Any] = {"step": 0, "metrics": 0, "best_accuracy": None, "seconds": 0.0}
        if folder.checkpoint.exists():
            self.position = load_checkpoint(folder.checkpoint, self.model, self.optimizer)
            self.totals += torch.tensor(self.position["totals"], dtype=torch.float64, device=device)
        self.events = events_of(config.training.tensorboard, folder.path / "tensorboard", self.step)
        self.metrics = MetricsFile(folder.metrics, self.position["metrics"])
        self.started = time.perf_counter() - self.position["seconds"]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.position["step"])

    def go(self, progress: bool | None) -> dict[str, Any]:
        """Train to the end, or until something ends it; always leaves a summary."""
        bar = progress_of(progress, self.config.name, self.step, self.training.steps)
        try:
            with Interruption() as interruption, bar:
                status = self._train(interruption, bar)
                if status == "interrupted":
                    self._save()
                return self._finish(status)
        finally:
            self.metrics.close()
            self.events.close()

    def _train(self, interruption: Interruption, bar: Progress) -> str:
        training = self.training
        data = TrainingSet(self.task, self.config, self.device)
        validation = self._examples(self.task.length, "validation")
        while self.step < training.steps:
            self._step(*data.batch(self.step))
            last = self.step == training.steps
            if (last or self.step % training.log_every == 0) and not self._log(bar):
                return "diverged"
            if last or self.step % training.eval_every == 0:
                accuracy = self._evaluate("validation", self.task.length, validation)
                self.position["best_accuracy"] = max(accuracy, self.position["best_accuracy"] or 0.0)
                bar.evaluated(accuracy)
                if 0 < training.stop_accuracy <= accuracy:
                    return "stopped_early"
            if interruption.signal is not None:
                return "interrupted"
            if self.step % training.checkpoint_every == 0 and not last:
                self._save()
        return "finished"

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, self.step)
        with self.autocast:
            logits, _ = self.model(inputs)
        loss, correct, counted = scores(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        if self.training.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.gradient_clip)
        self.optimizer.step()
        self.totals += torch.stack([loss.detach().double(), correct.double(), counted.double()])
        self.position["step"] += 1

    def _log(self, bar: Progress) -> bool:
        """Write the means since the last line; False when the loss is not finite."""
        loss, correct, counted = self.totals.tolist()
        self.totals.zero_()
        steps = (self.step - 1) % self.training.log_every + 1
        loss, accuracy = loss / steps, correct / max(counted, 1.0)
        finite = math.isfinite(loss)
        rate = learning_rate(self.training, self.step - 1)
        self._write(kind="train", step=self.step, loss=loss if finite else None, accuracy=accuracy, lr=rate)
        bar.update(self.step, loss, accuracy)
        return finite

    def _write(self, **entry: Any) -> None:
        self.metrics.append(**entry)
        self.events.add(entry)

    def _examples(self, length: int, split: str) -> Any:
        training = self.training
        return evaluation_set(self.task, length, split, training.eval_examples, training.seed, self.device)

    def _evaluate(self, split: str, length: int, examples: Any) -> float:
        result = evaluate(self.model, examples, self.training.batch_size, self.autocast)
        finite = {name: value if math.isfinite(value) else None for name, value in result.items()}
        self._write(kind="eval", step=self.step, split=split, length=length, **finite)
        return result["accuracy"]

    def _save(self) -> None:
        self.position["metrics"] = self.metrics.sync()
        self.position["seconds"] = time.perf_counter() - self.started
        self.position["totals"] = self.totals.tolist()
        save_checkpoint(self.folder.checkpoint, self.model, self.optimizer, self.position)

    def _finish(self, status: str) -> dict[str, Any]:
        """Test unless there is nothing to test, then weights and summary, and the checkpoint goes last."""
        accuracy: dict[str, float] = {}
        if status in ("finished", "stopped_early"):
            for length in eval_lengths(self.config, self.task):
                accuracy[str(length)] = self._evaluate("test", length, self._examples(length, "test"))
        self.metrics.sync()
        save_weights(self.folder.weights, self.model)
        summary = {
            "status": status,
            "step": self.step,
            "parameters": parameters(self.model),
            "mixer_parameters": mixer_parameters(self.model),
            "state_size": state_size(self.model, self.task.length),
            "flops_per_step": flops_per_step(self.model, self.task.length),
            "accuracy": accuracy,
            "best_accuracy": self.position["best_accuracy"],
            "seconds": round(time.perf_counter() - self.started, 3),
            "device": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else self.device.type,
            "torch": str(torch.__version__),
        }
        write_json(self.folder.summary, summary)
        if status != "interrupted":
            self.folder.remove_checkpoint()
        return summary
