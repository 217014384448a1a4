"""The training loop: plain, resumable to the bit, and honest about how it ended."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from statemix.analysis.accounting import flops_per_token, mixer_parameters, parameters, state_size
from statemix.training.build import (
    autocast_of,
    captures_of,
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
from statemix.training.evaluation import Scores, evaluate
from statemix.training.events import events_of
from statemix.training.files import RunError, replace_file, write_json
from statemix.training.folder import RunFolder
from statemix.training.guard import Guard
from statemix.training.interruption import Interruption
from statemix.training.metrics import MetricsFile
from statemix.training.progress import Progress, progress_of
from statemix.training.resolve import check
from statemix.training.steps import Job, steps_of

TURN = 20
"""Steps after which other runs get their turn, where nothing else ends it sooner."""


def train(
    config: Config, folder: str | Path, *, progress: bool | None = None, resume: bool = True
) -> dict[str, Any]:
    """Train a run in its folder, or go on where it was interrupted; returns the summary.

    progress: True shows how far it is (a line that moves on a terminal, plain lines in a log), False does not, None
    does when standard error is a terminal. resume: False refuses a folder that holds a run. A finished run returns its
    summary at once. On the CPU, with one number of threads, a run killed at any moment and resumed writes the same
    metrics and weights, bit for bit, as one that was not. SIGINT and SIGTERM save and return with status "interrupted";
    a loss that is not finite ends the run with status "diverged".
    Files: see docs/design.md, "Runs". Errors: ValueError for the configuration, ImportError for a missing extra,
    RunError for the folder, a checkpoint or the disk.
    """
    require(config)
    with opened(config, folder, resume) as run:
        if isinstance(run, dict):
            return run
        bar = progress_of(progress, config.name, run.step, config.training.steps)
        with Interruption() as interruption, bar, contextlib.closing(run):
            run.start(interruption, bar)
            summary = None
            while summary is None:
                summary = run.turn()
                bar.stepped(run.step)
            return summary


def require(config: Config) -> None:
    """Everything that can be said against a configuration before work begins: errors as `train`."""
    check(config)
    require_safetensors()
    captures_of(config.training, device_of(config))


@contextlib.contextmanager
def opened(config: Config, folder: str | Path, resume: bool = True) -> Iterator[Run | dict[str, Any]]:
    """The run of a folder, locked, ready to go on; or its summary when it has nothing left to do."""
    files = RunFolder(folder)
    files.prepare(config, resume)
    with files.locked() as lock:
        files.keep(config)
        files.remove_leftovers()
        files.failure.unlink(missing_ok=True)
        done = files.finished()
        if done is not None:
            files.check_scores(done)
            files.remove_checkpoint()  # a kill may have come between the summary and this
            yield done
        else:
            yield Run(config, files, device_of(config), Guard(files.path, files.config, lock))


class Run:
    """One run on its way: what has to be kept between steps, and what is done with it.

    `start`, then `turn` until it returns the summary, then `close`. On a GPU everything happens on a stream of the
    run's own, so that runs that take turns overlap there.
    """

    def __init__(self, config: Config, folder: RunFolder, device: torch.device, guard: Guard) -> None:
        self.config, self.training, self.folder, self.device = config, config.training, folder, device
        self.guard, self.run_id = guard, folder.run()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._turns: Generator[None, None, dict[str, Any]] | None = None
        with self._here():
            self._build()
        self.events = events_of(config.training.tensorboard, folder.events, self.step)
        length, digest = self.position["metrics"], self.position.get("metrics_sha256")
        self.metrics = MetricsFile(folder.metrics, length, digest, guard.check)
        self.started = time.perf_counter() - self.position["seconds"]

    def _build(self) -> None:
        config, device = self.config, self.device
        self.task = task_of(config)
        self.model: nn.Module = model_of(config, self.task).to(device)
        self.optimizer = optimizer_of(self.model, config.training)
        self.autocast = autocast_of(config.training, device)
        # loss, correct positions and counted positions since the last log
        self.totals = torch.zeros(3, dtype=torch.float64, device=device)
        self.position: dict[str, Any] = {"step": 0, "metrics": 0, "best_accuracy": None, "seconds": 0.0}
        if self.folder.checkpoint.exists():
            path = self.folder.checkpoint
            self.position = load_checkpoint(path, self.model, self.optimizer, self.run_id)
            if self.step > config.training.steps:
                raise RunError(f"{path}: step {self.step}, expected at most {config.training.steps}")
            self.totals += torch.tensor(self.position["totals"], dtype=torch.float64, device=device)

    def _here(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.position["step"])

    def start(self, interruption: Interruption, bar: Progress) -> None:
        """Say whom to listen to and whom to tell; nothing runs yet."""
        self._turns = self._go(interruption, bar)

    def turn(self) -> dict[str, Any] | None:
        """Run on to the next look at the numbers; returns the summary at the end.

        On a GPU the steps are then under way, not done.
        """
        assert self._turns is not None
        with self._here():
            try:
                next(self._turns)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
        return None

    def close(self) -> None:
        """Close the files; called at any time."""
        self.metrics.close()
        self.events.close()

    def _go(self, interruption: Interruption, bar: Progress) -> Generator[None, None, dict[str, Any]]:
        """Train to the end, or until something ends it; always leaves a summary."""
        status = yield from self._train(interruption, bar)
        if status == "interrupted":
            self._save()
        return self._finish(status)

    def _train(self, interruption: Interruption, bar: Progress) -> Generator[None, None, str]:
        training = self.training
        validate = self._prepare()
        while self.step < training.steps:
            yield from self._advance(interruption)
            last = self.step == training.steps
            if (last or self.step % training.log_every == 0) and not self._log(bar):
                return "diverged"
            if last or self.step % training.eval_every == 0:
                accuracy = self._scored("validation", self.task.length, validate())
                self.position["best_accuracy"] = max(accuracy, self.position["best_accuracy"] or 0.0)
                bar.evaluated(accuracy)
                if 0 < training.stop_accuracy <= accuracy:
                    return "stopped_early"
            if interruption.signal is not None:
                return "interrupted"
            if self.step % training.checkpoint_every == 0 and not last:
                self._save()
        return "finished"

    def _prepare(self) -> Callable[[], Scores]:
        """Get data and steps ready; returns what scores the model on the validation split."""
        data = TrainingSet(self.task, self.config, self.device)
        job = Job(self.model, self.optimizer, data, self.training, self.autocast, self.totals)
        self.steps = steps_of(job, captures_of(self.training, self.device), self.step)
        self.optimizer = self.steps.optimizer
        return self.steps.evaluator(self._examples(self.task.length, "validation"))

    def _advance(self, interruption: Interruption) -> Iterator[None]:
        """Steps, at least one, until there is something to do with their numbers or someone asks to stop.

        It is others' turn after every `TURN` steps, and at the end, before the numbers are waited for.
        """
        training = self.training
        every = (training.log_every, training.eval_every, training.checkpoint_every)
        until = min(training.steps, *((self.step // n + 1) * n for n in every))
        while True:
            begun = self.step
            while self.step < min(until, begun + TURN):
                self._step(min(until, begun + TURN) - self.step)
                if interruption.signal is not None:
                    break
            yield
            if self.step == until or interruption.signal is not None:
                return

    def _step(self, most: int) -> None:
        """At least one step and at most `most`."""
        self.position["step"] += self.steps.advance(self.step, most)

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
        self.guard.check()
        self.metrics.append(**entry)
        self.events.add(entry)

    def _examples(self, length: int, split: str) -> Any:
        training = self.training
        return evaluation_set(self.task, length, split, training.eval_examples, training.seed, self.device)

    def _scored(self, split: str, length: int, result: Scores) -> float:
        finite = {name: value if math.isfinite(value) else None for name, value in result.items()}
        self._write(kind="eval", step=self.step, split=split, length=length, **finite)
        return result["accuracy"]

    def _save(self) -> None:
        self.position["metrics"], self.position["metrics_sha256"] = self.metrics.sync()
        self.position["seconds"] = time.perf_counter() - self.started
        self.position["totals"] = self.totals.tolist()
        self.guard.check()
        save_checkpoint(self.folder.checkpoint, self.model, self.optimizer, self.position, self.run_id)

    def note_failure(self, text: str) -> None:
        """Leave the text in the folder, if that still is the run's. RunError when it cannot be."""
        self.guard.check()
        replace_file(
            self.folder.failure,
            lambda path: path.write_text(text, encoding="utf-8", errors="backslashreplace"),
        )

    def _finish(self, status: str) -> dict[str, Any]:
        """Test unless there is nothing to test, then weights and summary, and the checkpoint goes last."""
        accuracy: dict[str, float] = {}
        if status in ("finished", "stopped_early"):
            for length in eval_lengths(self.config, self.task):
                examples = self._examples(length, "test")
                result = evaluate(self.model, examples, self.training.batch_size, self.autocast)
                accuracy[str(length)] = self._scored("test", length, result)
        _, digest = self.metrics.sync()
        self.guard.check()
        save_weights(self.folder.weights, self.model, self.run_id)
        summary = {
            "status": status,
            "step": self.step,
            "parameters": parameters(self.model),
            "mixer_parameters": mixer_parameters(self.model),
            "state_size": state_size(self.model, self.task.length),
            "flops_per_token": flops_per_token(
                self.model, self._examples(self.task.length, "test").inputs[:1]
            ),
            "accuracy": accuracy,
            "best_accuracy": self.position["best_accuracy"],
            "seconds": round(time.perf_counter() - self.started, 3),
            "device": torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else self.device.type,
            "capture": self.steps.capture,
            "torch": str(torch.__version__),
            "run": self.run_id,
            "metrics_sha256": digest,
        }
        self.guard.check()
        write_json(self.folder.summary, summary)
        if status != "interrupted":
            self.folder.remove_checkpoint()
        return summary
