"""Checkpoints: weights, optimiser and position in one safetensors file, so that no kill can mix two of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from statemix.extras import missing
from statemix.training.files import RunError, replace_file

FORMAT = "statemix-checkpoint-1"
WEIGHTS_FORMAT = "statemix-weights-1"


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError(missing("safetensors")) from None
    return safetensors


def require_safetensors() -> None:
    """ImportError that says how to install it, before any work."""
    _safetensors()


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    library = _safetensors()
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        try:
            temporary.write_bytes(library.torch.save(plain, metadata))
        except library.SafetensorError as error:
            raise OSError(str(error)) from error

    replace_file(path, write)


def _read(path: Path, form: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file of ours: RunError for a missing, damaged or foreign one."""
    library = _safetensors()
    try:
        with library.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            found = metadata.get("format")
            if found != form:
                raise RunError(
                    f"{path}: format {found!r}, expected {form!r}: not written by this version of statemix"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except (OSError, library.SafetensorError) as error:
        raise RunError(f"{path} is damaged or no safetensors file: {error}") from None


def save_weights(path: Path, model: nn.Module) -> None:
    """The weights of a model."""
    _write(path, model.state_dict(), {"format": WEIGHTS_FORMAT})


def load_weights(path: Path, model: nn.Module) -> None:
    """Put saved weights into a model of the same shapes. RunError names what differs."""
    tensors, _ = _read(path, WEIGHTS_FORMAT)
    _into_model(path, tensors, model)


def _into_model(path: Path, tensors: dict[str, Tensor], model: nn.Module) -> None:
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        what = "lacks" if name in wanted else "has the unknown"
        raise RunError(f"{path} {what} weight {name!r}: it belongs to another model")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            came, expected = list(tensor.shape), list(wanted[name].shape)
            raise RunError(f"{path}: weight {name!r} has shape {came}, expected {expected}: another model's")
    model.load_state_dict(tensors)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any]
) -> None:
    """Everything a resume needs. `position`: JSON values (the step, the length of the metrics, running sums)."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    _write(path, tensors, {"format": FORMAT, "position": json.dumps(position)})


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint into model and optimiser; returns its position. RunError for a damaged or foreign file."""
    tensors, metadata = _read(path, FORMAT)
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "model":
            weights[rest] = tensor
        else:
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    _into_model(path, weights, model)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    position: dict[str, Any] = json.loads(metadata["position"])
    return position
