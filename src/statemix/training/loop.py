"""The training loop: resumable to the bit, with a summary of how it ended; one run, or many a slice of steps each."""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from statemix.analysis.accounting import flops_per_token, mixer_parameters, parameters, state_size
from statemix.extras import require
from statemix.tasks import Examples
from statemix.training.build import (
    build_device,
    build_task,
    captures_of,
    eval_examples,
    eval_lengths,
    learning_rate,
)
from statemix.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from statemix.training.config import Config
from statemix.training.data import evaluation_set
from statemix.training.evaluation import Scores, evaluate
from statemix.training.files import RunError, replace_file, write_json
from statemix.training.folder import RunFolder, run_id
from statemix.training.metrics import Events, MetricsFile
from statemix.training.progress import Progress
from statemix.training.resolve import check
from statemix.training.signals import StopSignals
from statemix.training.steps import build_state, build_step

SLICE = 20
"""Steps after which concurrent runs go on, where nothing else ends the slice sooner."""

Summary = dict[str, Any]
Slices = Generator[None, None, Summary]


def train(
    config: Config, folder: str | Path, *, progress: bool | None = None, resume: bool = True
) -> Summary:
    """Train a run in its folder, or resume it where it was interrupted; returns the summary.

    progress: True shows how far it is (a bar on a terminal, plain lines in a log), False does not, None does when
    standard error is a terminal. resume: False refuses a folder that holds a run. A finished run returns its summary
    at once. On the CPU, with one number of threads, a run killed at any moment and resumed writes the same metrics and
    weights, bit for bit, as one that was not. SIGINT and SIGTERM save and return with status "interrupted"; a loss
    that is not finite ends the run with status "diverged". An error leaves its traceback in `failure.txt`.
    Files: see docs/design.md, "Runs". Errors: ValueError for the configuration, ImportError for a missing extra,
    RunError for the folder, a checkpoint or the disk.

    >>> import tempfile
    >>> from statemix.training import resolve_config, train
    >>> settings = ["training.steps=2", "training.eval_examples=8", "training.device=cpu"]
    >>> config = resolve_config("demo-bdlru", overrides=settings)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = train(config, folder)
    >>> summary["status"], summary["step"]
    ('finished', 2)
    """
    check_trainable(config)
    with (
        StopSignals() as signals,
        contextlib.closing(slices(config, folder, resume, signals, progress)) as work,
    ):
        while True:
            try:
                next(work)
            except StopIteration as end:
                return dict(end.value)


def train_concurrently(
    configs: Sequence[Config],
    folders: Sequence[str | Path],
    *,
    concurrency: int = 8,
    progress: bool | None = None,
    resume: bool = True,
    ended: Callable[[int, Summary], None] = lambda place, summary: None,
) -> list[Summary]:
    """Train every configuration in its folder, `concurrency` at a time; returns the summaries, in order.

    Each run is as `train` would make it: its own folder, metrics, checkpoints, early stop and divergence; on the CPU
    with the same bits. The runs take some twenty steps each in rotation; on a GPU each has a stream of its own, so
    that their kernels overlap. One that ends makes room for the next. One that fails does not stop the others: its
    summary is {"status": "failed", "error", "traceback"}, and unless its folder is not its own the traceback is in
    `failure.txt` there until it is tried again.
    SIGINT, SIGTERM and SIGHUP save all active runs ("interrupted"); those not begun are "waiting".
    progress and resume: as `train`. ended: called with the place and the summary of every run, as it ends.
    Errors: ValueError, before any work, for a configuration, for two runs in one folder, or for a number of folders
    that is not that of the configurations; ImportError for a missing extra.
    """
    _check(configs, folders, concurrency)
    summaries: list[Summary] = [{"status": "waiting"} for _ in configs]
    waiting, active = list(range(len(configs)))[::-1], dict[int, Slices]()
    statuses: Counter[str] = Counter()
    with StopSignals() as signals, Progress(progress, "runs", 0, len(configs)) as bar:
        try:
            while active or (waiting and signals.received is None):
                while waiting and len(active) < concurrency and signals.received is None:
                    place = waiting.pop()
                    active[place] = slices(configs[place], folders[place], resume, signals, progress=False)
                for place, work in list(active.items()):
                    try:
                        next(work)
                        continue
                    except StopIteration as end:
                        summaries[place] = end.value
                    except Exception as error:
                        summaries[place] = _failed(error)
                    del active[place]
                    statuses[summaries[place]["status"]] += 1
                    bar.tell(sum(statuses.values()), **statuses)
                    ended(place, summaries[place])
        finally:
            for work in active.values():
                work.close()
    return summaries


def _check(configs: Sequence[Config], folders: Sequence[str | Path], concurrency: int) -> None:
    if len(folders) != len(configs):
        raise ValueError(
            f"folders: got {len(folders)}, expected one for each of {len(configs)} configurations"
        )
    paths = [Path(folder).resolve() for folder in folders]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise ValueError(f"folders: got {folders[place]} twice, expected a folder for each run")
    if concurrency < 1:
        raise ValueError(f"concurrency: got {concurrency}, expected at least 1")
    for place, config in enumerate(configs):
        try:
            check_trainable(config)
        except ValueError as error:
            raise ValueError(f"configs[{place}]: {error}") from None


def check_trainable(config: Config) -> None:
    """Everything that can be checked before work begins: errors as `train`."""
    check(config)
    require("safetensors")
    captures_of(config.training, build_device(config))


def costs(model: torch.nn.Module, example: torch.Tensor, length: int) -> Summary:
    """What a summary says of the size of a model: example: int64 [1, T], one row of inputs; length: the task's."""
    return {
        "parameters": parameters(model), "mixer_parameters": mixer_parameters(model),
        "state_size": state_size(model, length), "flops_per_token": flops_per_token(model, example),
    }  # fmt: skip


def _failed(error: Exception) -> Summary:
    line = " ".join(str(error).split()) or type(error).__name__
    text = "".join(traceback.format_exception(error))
    return {"status": "failed", "error": f"{type(error).__name__}: {line}", "traceback": text}


def slices(
    config: Config, folder: str | Path, resume: bool, signals: StopSignals, progress: bool | None
) -> Slices:
    """Train the run of a folder some steps at a time, under its lock; returns the summary. Closing it unlocks the run.

    A run that fails leaves its traceback in the folder.
    """
    files = RunFolder(folder)
    files.prepare(config, resume)
    with files.locked() as guard:
        files.keep(config)
        guard()
        files.remove_leftovers()
        files.failure.unlink(missing_ok=True)
        done = files.finished()
        if done is not None:
            if not {"step", "accuracy"} <= done.keys():
                raise RunError(f"{files.summary} is damaged: it lacks 'step' or 'accuracy'")
            files.remove_checkpoint()  # a kill may have come between the summary and this
            return done
        run = Run(config, files, guard)
        bar = Progress(progress, f"{config.name}, step", run.step, config.training.steps)
        with bar, contextlib.closing(run):
            try:
                yield from run.slices(signals, bar)
            except Exception as error:
                with contextlib.suppress(RunError):  # unless the folder is no longer the run's
                    run.note_failure(_failed(error)["traceback"])
                raise
        return run.summary


class Run:
    """One run that is being trained: what is kept between steps, and its files.

    guard: raises when the folder is no longer the run's; called before anything is written. summary: at the end. On a
    GPU everything happens on a stream of the run's own, so that concurrent runs overlap there.
    """

    def __init__(self, config: Config, folder: RunFolder, guard: Callable[[], None]) -> None:
        self.config, self.training, self.folder, self.guard = config, config.training, folder, guard
        self.device, self.task = build_device(config), build_task(config)
        self.run_id, self.summary = run_id(config.to_dict()), Summary()
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self.position: dict[str, Any] = {"step": 0, "metrics": 0, "best_accuracy": None, "seconds": 0.0}
        with torch.cuda.stream(self._stream):
            self.state = build_state(config, self.device)
            if (path := folder.checkpoint).exists():
                self.position = load_checkpoint(path, self.state.model, self.state.optimizer, self.run_id)
                if not 1 <= self.step <= self.training.steps:
                    raise RunError(f"{path}: step {self.step}, expected 1 to {self.training.steps}")
                self.state.totals.copy_(torch.tensor(self.position["totals"], dtype=torch.float64))
        self.events = Events(config.training.tensorboard, folder.events, self.step)
        lines = self.position["metrics"], self.position.get("metrics_sha256")
        self.metrics = MetricsFile(folder.metrics, *lines)
        self.started = time.perf_counter() - self.position["seconds"]

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.position["step"])

    def close(self) -> None:
        """Close the files; called at any time."""
        self.metrics.close()
        self.events.close()

    def slices(self, signals: StopSignals, bar: Progress) -> Iterator[None]:
        """Train to the end, or until something ends it; yields where others may go on, on a GPU with steps queued."""
        work = self._train(signals, bar)
        while True:
            with torch.cuda.stream(self._stream):
                if next(work, "over") == "over":
                    return
            yield

    def _train(self, signals: StopSignals, bar: Progress) -> Iterator[None]:
        """Steps until there is something to do with their numbers, a signal asks to stop, or others may go on."""
        training = self.training
        self.steps = build_step(self.state, captures_of(training, self.device), self.step)
        every = (training.log_every, training.eval_every, training.checkpoint_every)
        validate = self.steps.evaluator(self._examples(self.task.length, "validation"))
        while self.step < training.steps:
            until = min(training.steps, self.step + SLICE, *((self.step // n + 1) * n for n in every))
            while self.step < until:
                self._step(until - self.step)
                if signals.received is not None:
                    break
            yield
            last, numbers, accuracy = self.step == training.steps, dict[str, float](), 0.0
            if last or self.step % training.log_every == 0:
                numbers = self._log()
                if not math.isfinite(numbers["loss"]):
                    return self._finish("diverged")
            if last or self.step % training.eval_every == 0:
                accuracy = numbers["validation"] = self._score("validation", self.task.length, validate())
                self.position["best_accuracy"] = max(accuracy, self.position["best_accuracy"] or 0.0)
            bar.tell(self.step, **numbers)
            if 0 < training.stop_accuracy <= accuracy:
                return self._finish("stopped_early")
            if signals.received is not None:
                return self._finish("interrupted")
            if self.step % training.checkpoint_every == 0 and not last:
                self._save()
        return self._finish("finished")

    def _step(self, most: int) -> None:
        self.position["step"] += self.steps.advance(self.step, most)

    def _log(self) -> dict[str, float]:
        """Write and return the means since the last line."""
        loss, correct, counted = self.state.totals.tolist()
        self.state.totals.zero_()
        loss, accuracy = loss / ((self.step - 1) % self.training.log_every + 1), correct / max(counted, 1.0)
        rate = learning_rate(self.training, self.step - 1)
        self._write(kind="train", step=self.step, loss=loss, accuracy=accuracy, lr=rate)
        return {"loss": loss, "accuracy": accuracy}

    def _score(self, split: str, length: int, result: Scores) -> float:
        self._write(kind="eval", step=self.step, split=split, length=length, **result)
        return result["accuracy"]

    def _write(self, **entry: Any) -> None:
        self.guard()
        entry |= {
            name: None for name, one in entry.items() if isinstance(one, float) and not math.isfinite(one)
        }
        self.metrics.append(**entry)
        self.events.add(entry)

    def _examples(self, length: int, split: str) -> Examples:
        count = eval_examples(self.config, self.task, length)
        return evaluation_set(self.task, length, split, count, self.training.seed, self.device)

    def _save(self) -> None:
        self._check()
        self.position["metrics"], self.position["metrics_sha256"] = self.metrics.sync()
        self.position["seconds"] = time.perf_counter() - self.started
        self.position["totals"] = self.state.totals.tolist()
        model, optimizer = self.state.model, self.state.optimizer
        save_checkpoint(self.folder.checkpoint, model, optimizer, self.position, self.run_id)

    def _check(self) -> None:
        """Whether the folder is still this run's; a configuration that was removed is put back."""
        self.guard()
        self.folder.keep(self.config)

    def note_failure(self, text: str) -> None:
        """Leave the text in the folder, if that still is the run's. RunError when it cannot be."""
        self.guard()
        content = text.encode(errors="backslashreplace")
        replace_file(self.folder.failure, lambda path: path.write_bytes(content))

    def _finish(self, status: str) -> None:
        """Test unless there is nothing to test, then weights and summary, and the checkpoint goes last."""
        if status == "interrupted":
            self._save()
        model, accuracy = self.state.model, dict[str, float]()
        if status in ("finished", "stopped_early"):
            for length in eval_lengths(self.config, self.task):
                examples = self._examples(length, "test")
                result = evaluate(model, examples, self.training.batch_size, self.state.autocast)
                accuracy[str(length)] = self._score("test", length, result)
        _, digest = self.metrics.sync()
        self._check()
        save_weights(self.folder.weights, model, self.run_id)
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        self.summary = {
            "status": status,
            "step": self.step,
            **costs(model, self.state.data.instances[:1, 0], self.task.length),
            "accuracy": accuracy,
            "best_accuracy": self.position["best_accuracy"],
            "seconds": round(time.perf_counter() - self.started, 3),
            "device": name,
            "capture": self.steps.capture,
            "torch": str(torch.__version__),
            "run": self.run_id,
            "metrics_sha256": digest,
        }
        self.guard()
        write_json(self.folder.summary, self.summary)
        if status != "interrupted":
            self.folder.remove_checkpoint()
