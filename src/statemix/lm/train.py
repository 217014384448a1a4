"""Training of a language model in a folder: resumed exactly, measured, saved."""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statemix.analysis import parameters
from statemix.environment import describe
from statemix.extras import require
from statemix.lm.build import build_language_model, build_optimizer, compile_blocks, count_flops, matmul_rate
from statemix.lm.checkpoint import Checkpoints, gather_weights
from statemix.lm.config import RUNTIME_KEYS, LMConfig
from statemix.lm.data import VALIDATION, build_loader, held_out_batches, pack_id
from statemix.lm.loading import save_tokenizer
from statemix.lm.loss import LanguageModelLoss
from statemix.lm.metrics import LMEvents, Meter, SpikeDetector, memory_bytes, summarize, utilization
from statemix.lm.processes import add_up, any_of, is_first, on_first, rank, world_size
from statemix.packs import Pack
from statemix.training.build import build_autocast, learning_rate
from statemix.training.checkpoint import save_weights
from statemix.training.files import RunError, write_json
from statemix.training.folder import RunFolder, run_id
from statemix.training.metrics import MetricsFile
from statemix.training.progress import Progress
from statemix.training.signals import StopSignals

Summary = dict[str, Any]

HOPELESS = 50
"""Steps skipped one after another with which a run has diverged."""


class LMFolder(RunFolder):
    """The folder of a language model's run: as a `RunFolder`, with checkpoints of torch.distributed.checkpoint."""

    runtime_keys = RUNTIME_KEYS

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.checkpoints = self.path / "checkpoints"


def train_language_model(
    config: LMConfig, folder: str | Path, *, progress: bool | None = None, resume: bool = True
) -> Summary:
    """Train a language model in a folder, or go on where it was stopped; returns its summary.

    In one process, or in each of those that torchrun started (`training.sharding`: DDP or FSDP2). A run that was killed
    goes on from its newest checkpoint, on the CPU with the same bits if the number of processes is the same. The order
    of the data is the same for any number. SIGINT, SIGTERM and SIGHUP save a checkpoint ("interrupted").

    Args:
        config: What `resolve_lm_config` returns; `data.pack` names a pack.
        folder: config.json, metrics.jsonl, checkpoints/, tensorboard/, and at the end model.safetensors and
            summary.json.
        progress: Show how far it is; None: on a terminal.
        resume: Whether a folder that holds this run is gone on with; else it is refused.

    Returns:
        "status" ("finished", "interrupted" or "diverged"), "step", "loss" and "bits_per_byte" (held out), "parameters",
        "tokens", "tokens_per_second", "mfu", "memory_gb", "spikes", "skipped", "seconds".

    Raises:
        ValueError: A setting cannot be, or the pack has ids that the model has not.
        FileNotFoundError: There is no pack.
        RunError: A file is damaged, of another run, or cannot be written; what was saved before is untouched.
        ImportError: A package of the extra `lm` is missing.
    """
    require("transformers", "accelerate", "safetensors", "numpy")
    pack = open_pack(config)
    config = fill_in(config, pack)
    flops = count_flops(config)  # builds the model without allocating it: what cannot be is refused here
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(c10d|barrier|find_unused_parameters|lr_scheduler.step).*"
        )
        from statemix.lm.engine import build_arguments, leave

        arguments = build_arguments(config, Path(folder))
        files = LMFolder(folder)
        with _locked(files, config, resume):
            summary = on_first(files.finished)
            if summary is None:
                with StopSignals() as signals:
                    summary = _Run(config, flops, pack, files, arguments, signals).train(progress)
        leave()
        return summary


def open_pack(config: LMConfig) -> Pack:
    """The training split. ValueError or FileNotFoundError where there is none."""
    if not config.data.pack:
        raise ValueError(
            "data.pack: missing, expected the folder of a pack (statemix text prepare writes one)"
        )
    return Pack(config.data.pack)


def fill_in(config: LMConfig, pack: Pack) -> LMConfig:
    """The configuration with the pack's digest and, where the model's is 0, its vocabulary. ValueError: too small."""
    model = config.model
    if model.vocab_size:
        try:
            pack.check_vocab_size(model.vocab_size)
        except ValueError as error:
            raise ValueError(f"model.{error}") from None
    model = replace(model, vocab_size=model.vocab_size or pack.vocab_size)
    return replace(config, model=model, data=replace(config.data, digest=pack_id(pack)))


@contextlib.contextmanager
def _locked(files: LMFolder, config: LMConfig, resume: bool) -> Iterator[None]:
    """The first process prepares and holds the folder; what it finds wrong is raised in all."""
    with contextlib.ExitStack() as held:

        def prepare() -> None:
            files.prepare(config, resume)
            held.enter_context(files.locked())
            files.keep(config)
            files.remove_leftovers()

        on_first(prepare)
        yield


class _Run:
    """One run that is being trained, in one of its processes."""

    def __init__(
        self,
        config: LMConfig,
        flops: int,
        pack: Pack,
        files: LMFolder,
        arguments: Any,
        signals: StopSignals,
    ) -> None:
        self.config, self.training, self.files, self.signals = config, config.training, files, signals
        self.arguments, self.device = arguments, arguments.device
        self.pack, self.held_out = pack, _held_out(pack)
        self.flops = flops
        self.run_id = run_id(config.to_dict(), RUNTIME_KEYS)
        self.checkpoints = Checkpoints(files.checkpoints, self.run_id, self.training.keep_checkpoints)
        self.newest = on_first(self.checkpoints.newest)
        self.position: dict[str, Any] = {"step": 0, "metrics": [0, None], "seconds": 0.0, "detector": None}
        if self.newest is not None:
            self.position |= self.newest[1]
        self.start, self.detector = int(self.position["step"]), SpikeDetector(self.position["detector"])
        self.rows = arguments.per_device_train_batch_size
        self.tokens = self.training.batch_size * config.data.length
        self.meter, self.speeds = Meter(self.device), list[float]()
        self.scores: dict[str, float] = {}
        self.interrupted = self.diverged = False
        self.step = self.start
        self._prepare_model()
        self.rate = matmul_rate(self.device, self.autocast_dtype)

    def _prepare_model(self) -> None:
        from statemix.lm.engine import shard

        model = build_language_model(self.config, self.device)
        self.parameters = parameters(model)
        autocast = build_autocast(self.training, self.device)  # type: ignore[arg-type]
        self.autocast_dtype = torch.bfloat16 if isinstance(autocast, torch.autocast) else torch.float32
        compiled = self.training.compile
        self.model = LanguageModelLoss(model, autocast, self.training.loss_chunk, compiled)
        if compiled:
            compile_blocks(model.layers)
        self.sharded = world_size() > 1 and self.training.sharding == "fsdp"
        if self.sharded:
            shard(self.model, self.device)
        self.optimizer = build_optimizer(self.model, self.training)

    def train(self, progress: bool | None) -> Summary:
        """From the newest checkpoint to the end, or until a signal."""
        from statemix.lm.callbacks import Progression
        from statemix.lm.engine import LanguageModelTrainer, build_scheduler

        accumulation = self.arguments.gradient_accumulation_steps
        loader = build_loader(
            self.config,
            self.pack,
            accumulation=accumulation,
            start=self.start,
            rank=rank(),
            world_size=world_size(),
        )
        if self.newest is not None:
            self.checkpoints.load(self.newest[0], self.model, self.optimizer)
        scheduler = build_scheduler(self.optimizer, self.training, self.start)
        shown = progress if is_first() else False
        name = f"{self.config.name}, step"
        with Progress(shown, name, self.start, self.training.steps) as self.bar, self._outputs():
            if self.start < self.training.steps:
                LanguageModelTrainer(
                    self.model, self.arguments, loader, self.optimizer, scheduler, self.meter, [Progression(self)],
                    sharded=self.sharded,
                ).train()  # fmt: skip
            return self._finish()

    @contextlib.contextmanager
    def _outputs(self) -> Iterator[None]:
        """metrics.jsonl and TensorBoard, in the first process."""
        self.metrics: MetricsFile | None = None
        self.events: LMEvents | None = None
        on_first(self._open)
        self.mark = time.perf_counter()
        try:
            yield
        finally:
            for one in (self.metrics, self.events):
                if one is not None:
                    one.close()

    def _open(self) -> None:
        length, digest = self.position["metrics"]
        self.metrics = MetricsFile(self.files.metrics, length, digest)
        self.events = LMEvents(self.training.tensorboard, self.files.events, self.start)
        self.metrics.append(
            kind="start", step=self.start, processes=world_size(), parameters=self.parameters,
            flops_per_token=self.flops, matmul_flops_per_second=self.rate, precision=str(self.autocast_dtype)[6:],
            **describe(str(self.device)),
        )  # fmt: skip

    def write(self, kind: str, **numbers: Any) -> None:
        """A line of metrics, in the first process."""
        if self.metrics is None or self.events is None:
            return
        entry = {"kind": kind, "step": self.step, **numbers}
        self.metrics.append(**entry)
        self.events.add(entry)

    def log(self) -> None:
        """The steps since the last line: loss, speed, memory, spikes. Waits for the device."""
        first = self.step - len(self.meter) + 1
        window = summarize(self.meter.drain(), first, self.detector)
        seconds = self._lap()
        speed = self.tokens * (self.step - first + 1) / seconds
        self.speeds.append(speed)
        self.diverged = self.detector.state["running"] >= HOPELESS
        self.mfu = utilization(speed / world_size(), self.flops, self.rate)
        self.write(
            "train", loss=window.loss, lr=self._rate(), gradient_norm=window.norm, tokens=self.step * self.tokens,
            tokens_per_second=speed, mfu=self.mfu, memory_gb=memory_bytes(self.device) / 1e9,
            skipped=self.detector.state["skipped"], spikes=window.spikes, skipped_steps=window.skipped,
        )  # fmt: skip
        self._note(window.spikes, "a loss far above those before")
        self._note(window.skipped, "a gradient that is not finite: skipped")
        self.bar.tell(self.step, **({} if window.loss is None else {"loss": window.loss}))

    def _rate(self) -> float:
        """The learning rate of the step that was made last."""
        return learning_rate(self.training, self.step - 1)  # type: ignore[arg-type]

    def begin(self) -> None:
        """The time of the first step begins."""
        self.mark = time.perf_counter()

    def _lap(self) -> float:
        """Seconds since the last mark."""
        now = time.perf_counter()
        seconds, self.mark = now - self.mark, now
        self.position["seconds"] += seconds
        return max(seconds, 1e-9)

    def _note(self, steps: list[int], what: str) -> None:
        if steps and is_first():
            print(f"note: step {', '.join(map(str, steps))}: {what}", file=sys.stderr)

    def evaluate(self) -> None:
        """The held-out loss, and a line of metrics."""
        if self.held_out is None:
            return
        sums = self._held_out_sums()
        loss = float(sums[0] / sums[1])
        finite = loss if math.isfinite(loss) else None
        bits = None if finite is None else self.held_out.bits_per_byte(finite)
        self.scores = {} if finite is None or bits is None else {"loss": finite, "bits_per_byte": bits}
        self.write("eval", loss=finite, bits_per_byte=bits, tokens=int(sums[1]))
        self._lap()

    @torch.no_grad()
    def _held_out_sums(self) -> Tensor:
        """float64 [2]: loss and tokens, over all processes."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        assert self.held_out is not None
        batches = held_out_batches(
            self.config, self.held_out, rows=self.rows, rank=rank(), world_size=world_size()
        )
        self.model.eval()
        for batch in batches:
            on_device = {name: tensor.to(self.device) for name, tensor in batch.items()}
            counted = int(batch["counted"].sum()) * self.config.data.length
            sums += torch.stack([self.model(**on_device).double(), sums.new_tensor(float(counted))])
        return add_up(sums)

    def save(self) -> None:
        """A checkpoint of this step."""
        if self.meter:
            raise RunError(
                "a checkpoint is written after a line of metrics"
            )  # pragma: no cover - a defect here
        self._lap()
        written = None if self.metrics is None else list(self.metrics.sync())
        position = {**self.position, "metrics": written, "detector": self.detector.state}
        self.checkpoints.save(self.step, self.model, self.optimizer, position)
        self._lap()

    def stops_here(self) -> bool:
        """Whether a process has received a signal: after every step; of several processes, at lines of metrics."""
        if world_size() > 1 and self.step % self.training.log_every:
            return False
        return any_of(self.signals.received is not None, self.device)

    def _finish(self) -> Summary:
        status = "interrupted" if self.interrupted else "diverged" if self.diverged else "finished"
        if status == "finished" and not self.scores:
            self.evaluate()
        weights = gather_weights(self.model) if status != "interrupted" else {}
        summary = self._summary(status)
        on_first(lambda: self._write_end(summary, weights))
        return summary

    def _summary(self, status: str) -> Summary:
        speed = statistics.median(self.speeds) if self.speeds else None
        mfu = None if speed is None else utilization(speed / world_size(), self.flops, self.rate)
        return {
            "status": status, "step": self.step, "run": self.run_id, "loss": None, "bits_per_byte": None, **self.scores,
            "parameters": self.parameters, "tokens": self.step * self.tokens, "tokens_per_second": speed, "mfu": mfu,
            "memory_gb": memory_bytes(self.device) / 1e9, "processes": world_size(),
            "spikes": self.detector.state["spikes"], "skipped": self.detector.state["skipped"],
            "seconds": self.position["seconds"],
        }  # fmt: skip

    def _write_end(self, summary: Summary, weights: dict[str, Tensor]) -> None:
        assert self.metrics is not None
        _, digest = self.metrics.sync()
        if summary["status"] != "interrupted":
            names = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
            save_weights(self.files.weights, names, self.run_id)
            save_tokenizer(self.files.path, self.pack.tokenizer)
        write_json(self.files.summary, {**summary, "metrics_sha256": digest})


def _held_out(pack: Pack) -> Pack | None:
    """The held-out split, if there is one."""
    try:
        return Pack(pack.folder, VALIDATION)
    except ValueError:
        return None
