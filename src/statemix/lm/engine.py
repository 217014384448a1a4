"""The engine: transformers' Trainer over accelerate, with our batches, loss, optimiser and callbacks.

The Trainer runs the steps: gradient accumulation, clipping, DDP, the end of the training. What a resumed run needs
exactly happens in its callbacks (`statemix.lm.callbacks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from statemix.lm.build import SkippingAdamW
from statemix.lm.config import LMConfig, TrainingConfig, check_batches
from statemix.lm.loss import LanguageModelLoss
from statemix.lm.metrics import Meter
from statemix.lm.processes import world_size
from statemix.training.build import learning_rate


def build_arguments(config: LMConfig, folder: Path) -> TrainingArguments:
    """What the Trainer is told; joins the processes of torchrun. ValueError for a batch without equal shares."""
    training = config.training
    accumulation = check_batches(config, world_size())
    if training.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: got 'cuda', which cannot be used here: torch finds no GPU")
    on_cpu = training.device == "cpu" or not torch.cuda.is_available()
    arguments = TrainingArguments(
        str(folder), max_steps=training.steps, gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=training.batch_size // world_size() // accumulation,
        max_grad_norm=training.gradient_clip or float("inf"), learning_rate=training.lr, seed=training.seed,
        use_cpu=on_cpu, ddp_find_unused_parameters=False, ddp_broadcast_buffers=False, remove_unused_columns=False,
        logging_strategy="no", save_strategy="no", eval_strategy="no", logging_nan_inf_filter=False, report_to="none",
        disable_tqdm=True, log_level="error",
    )  # fmt: skip
    _ = arguments.device  # joins the processes, and chooses this one's GPU
    arguments._n_gpu = min(1, arguments.n_gpu)  # several processes use several GPUs, never threads of one
    return arguments


def leave() -> None:
    """Part with the other processes, so that another training may begin in this one."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def shard(model: LanguageModelLoss, device: torch.device) -> None:
    """FSDP2: each block's parameters over all processes, and those outside the blocks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world_size(),))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def build_scheduler(optimizer: SkippingAdamW, training: TrainingConfig, start: int) -> LambdaLR:
    """The learning rates of the steps from `start` on."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0  # the function gives the rate itself
    return LambdaLR(optimizer, partial(_rate, training), last_epoch=start - 1)


def _rate(training: TrainingConfig, step: int) -> float:
    return learning_rate(training, min(step, training.steps - 1))  # type: ignore[arg-type]


class LanguageModelTrainer(Trainer):
    """Trainer of a `LanguageModelLoss` on micro-batches that are read in order.

    sharded: whether the parameters are sharded already, so that accelerate must not wrap the model. meter: takes the
    losses and the gradient norms; a step whose gradient norm is not finite changes nothing but the learning rate.
    """

    def __init__(
        self,
        model: LanguageModelLoss,
        arguments: TrainingArguments,
        loader: DataLoader[Any],
        optimizer: SkippingAdamW,
        scheduler: LambdaLR,
        meter: Meter,
        callbacks: Sequence[TrainerCallback],
        *,
        sharded: bool,
    ) -> None:
        super().__init__(model, arguments, optimizers=(optimizer, scheduler), callbacks=list(callbacks))
        self.remove_callback(PrinterCallback)
        self._loader, self._adamw, self._meter = loader, optimizer, meter
        clip = self.accelerator.clip_grad_norm_
        self.accelerator.clip_grad_norm_ = partial(self._clip, clip)  # type: ignore[method-assign]
        if sharded:
            prepare = self.accelerator.prepare_model
            self.accelerator.prepare_model = partial(prepare, evaluation_mode=True)  # type: ignore[method-assign]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's own micro-batches: accelerate shares out nothing."""
        return self._loader

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any
    ) -> Tensor:
        """The mean over the tokens of a micro-batch."""
        loss = model(**inputs) / inputs["tokens"][:, 1:].numel()
        self._meter.add(loss, 1 / self.args.gradient_accumulation_steps)
        return loss

    def _clip(self, clip: Any, *arguments: Any, **options: Any) -> Tensor:
        norm: Tensor = clip(*arguments, **options)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self._meter.norm = norm.detach().to(torch.float32)
        self._adamw.found_inf = 1.0 - norm.detach().isfinite().to(torch.float32)
        return norm
