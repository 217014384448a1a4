"""Checkpoints by torch.distributed.checkpoint: weights, AdamW's state and the position, whole or not at all.

checkpoints/step-00000500/   *.distcp and .metadata of torch.distributed.checkpoint; position.json, written last
checkpoints/.step-…tmp       one that a killed process did not finish; removed by the next

Tensors are stored under their names in the model, so one process, DDP and FSDP2 read each other's checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from statemix.lm.processes import is_first, on_first
from statemix.training.files import RunError, read_json, write_json, writing

POSITION = "position.json"
FILES = "files"
"""The entry of a position with the sizes of the other files."""

UNTOUCHED = "(what was saved before is untouched)"


class Checkpoints:
    """The checkpoints of a run: a folder in which `step-N` is whole.

    path: the folder. run: the digest of what the run computes, compared when one is loaded. keep: how many stay, the
    newest.
    """

    def __init__(self, path: Path, run: str, keep: int) -> None:
        self.path, self.run, self.keep = path, run, keep

    def steps(self) -> list[int]:
        """The steps of whole checkpoints, ascending."""
        found = self.path.glob("step-*") if self.path.is_dir() else []
        return sorted(int(path.name[5:]) for path in found if (path / POSITION).is_file())

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint and its position, or None. RunError for a damaged one, or one of another run."""
        steps = self.steps()
        if not steps:
            return None
        folder = self._folder(steps[-1])
        position = read_json(folder / POSITION)
        if position.get("run") != self.run:
            raise RunError(f"{folder} belongs to another run than the config.json of its folder")
        for name, size in position[FILES].items():
            path = folder / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                came = "is missing" if found is None else f"has {found} bytes, expected {size}"
                raise RunError(f"{path} {came}: remove {folder} to resume from the checkpoint before it")
        return folder, position

    def save(
        self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, position: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint, put it in place, and remove the oldest. Called by all processes at once.

        RunError when it cannot be written, in every process; the checkpoints before stay.
        """
        final = self._folder(step)
        temporary = final.with_name(f".{final.name}.tmp")
        on_first(lambda: self._begin(temporary))
        state = _state(model, optimizer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of one process, and of what torch deprecates in itself
                save(state, checkpoint_id=temporary)
        except BaseException as error:
            if is_first():
                shutil.rmtree(temporary, ignore_errors=True)
            if not isinstance(error, (CheckpointException, OSError, RuntimeError)):
                raise
            raise RunError(f"cannot write {final}: {_reason(error)} {UNTOUCHED}") from error
        on_first(lambda: self._finish(temporary, final, {**position, "step": step, "run": self.run}))

    def load(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put a checkpoint into model and optimiser. RunError when it is damaged or of another model."""
        state = _state(model, optimizer)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load(state, checkpoint_id=folder)
        except (CheckpointException, OSError, RuntimeError, ValueError, EOFError) as error:
            raise RunError(f"cannot read {folder}: {_reason(error)}") from error
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    def _folder(self, step: int) -> Path:
        return self.path / f"step-{step:08}"

    def _begin(self, temporary: Path) -> None:
        with writing(temporary):
            for unfinished in self.path.glob(".step-*.tmp"):
                shutil.rmtree(unfinished)
            temporary.mkdir(parents=True)

    def _finish(self, temporary: Path, final: Path, position: dict[str, Any]) -> None:
        with writing(final):
            sizes = {}
            for path in sorted(temporary.iterdir()):
                _synchronize(path)
                sizes[path.name] = path.stat().st_size
            write_json(temporary / POSITION, {**position, FILES: sizes})
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _synchronize(self.path)
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self._folder(step), ignore_errors=True)


def gather_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The whole weights on the CPU, in the first process; empty in others. Called by all processes at once."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: Mapping[str, Any] = get_model_state_dict(model, options=options)
    places: set[int] = set()
    separate: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        tied = tensor.data_ptr() in places  # written twice: a file of safetensors shares nothing
        separate[name] = tensor.clone() if tied else tensor
        places.add(tensor.data_ptr())
    return separate


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def _reason(error: BaseException) -> str:
    """The first failure of all processes, in one line."""
    failures = getattr(error, "failures", None)
    first = next(iter(failures.values()), error) if failures else error
    first = first[0] if isinstance(first, tuple) else first
    lines = str(getattr(first, "strerror", None) or first).splitlines()
    return lines[0] if lines else type(first).__name__


def _synchronize(path: Path) -> None:
    with contextlib.suppress(PermissionError):  # a folder, where systems do not open them
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
