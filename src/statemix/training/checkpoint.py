"""Weights, and checkpoints (weights, optimiser and position in one file, so that no kill can mix two), as safetensors.

The metadata of a file has one entry, "statemix": JSON with the format, the run it belongs to (`run_id`), a checkpoint's
position, and the SHA-256 of all of it and of the tensors. Files of earlier versions ("…-1") have an entry for each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statemix.extras import require
from statemix.training.files import DIGEST, MissingFileError, RunError, digest_of, read_bytes, replace_file

CHECKPOINT, WEIGHTS = "statemix-checkpoint", "statemix-weights"

POSITION = {"step", "metrics", "seconds", "totals"}
"""What a position has to hold."""


def _write(path: Path, tensors: Mapping[str, Tensor], told: dict[str, Any]) -> None:
    """Equal content makes equal bytes."""
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    _, header, data = _parts(save(plain))
    told = {**told, DIGEST: digest_of({**told, "tensors": header}, data)}
    content = save(plain, {"statemix": json.dumps(told)})
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def _parts(content: bytes) -> tuple[dict[str, str], dict[str, Any], bytes]:
    """The metadata, the places of the tensors, and the data of a safetensors file. ValueError for what is none."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header.pop("__metadata__", {}), header, content[end:]


def _read(path: Path, form: str, run: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata. RunError for a file that is missing, damaged, of another format or of another run."""
    require("safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load

    wrong = (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError)
    try:
        content = read_bytes(path)
        metadata, header, data = _parts(content)
        if "statemix" in metadata:
            told = json.loads(metadata["statemix"])
            if told.pop(DIGEST, None) != digest_of({**told, "tensors": header}, data):
                raise ValueError("its content does not fit the digest that was written with it")
        else:  # a file of format 1
            told = {key: json.loads(text) if key == "position" else text for key, text in metadata.items()}
        tensors: dict[str, Tensor] = load(content)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist") from None
    except wrong as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} is damaged or no safetensors file: {reason}") from None
    if told.get("format") not in (f"{form}-2", f"{form}-1"):
        raise RunError(
            f"{path}: format {told.get('format')!r}, expected '{form}-2': not written by this version"
        )
    if run is not None and told.get("run", run) != run:
        raise RunError(f"{path} belongs to another run than the config.json of its folder")
    position = told.get("position")
    if form == CHECKPOINT and not (isinstance(position, dict) and position.keys() >= POSITION):
        expected = ", ".join(sorted(POSITION))
        raise RunError(f"{path} is damaged: its position is {position!r}, expected {expected}")
    return tensors, told


def _load(path: Path, tensors: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copy the tensors of a file into others of the same names, shapes and dtypes. RunError names what differs."""
    for name in sorted(into.keys() ^ tensors.keys()):
        what = "lacks" if name in into else "has the unknown"
        raise RunError(f"{path} {what} tensor {name!r}: it belongs to another model")
    for name, tensor in tensors.items():
        found, wanted = ((list(one.shape), one.dtype) for one in (tensor, into[name]))
        if found != wanted:
            raise RunError(f"{path}: {name!r} is {found[1]} {found[0]}, expected {wanted[1]} {wanted[0]}")
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(tensors[name])


def _training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds: weights, and what the optimiser keeps for each parameter."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    for index, parameter in enumerate(parameters):
        tensors |= {f"optimizer.{index}.{key}": one for key, one in optimizer.state[parameter].items()}
    return tensors


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: its "position" and, but in the earliest versions, its "run"."""
    return _read(path, CHECKPOINT)[1]


def save_weights(path: Path, model: nn.Module | Mapping[str, Tensor], run: str) -> None:
    """The weights of a model, or its state dict, for any reader of safetensors; run: whose they are (`run_id`)."""
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    _write(path, weights, {"format": f"{WEIGHTS}-2", "run": run})


def load_weights(path: Path, model: nn.Module, run: str | None = None) -> None:
    """Put saved weights into a model of the same shapes. RunError names what differs, or a file of another `run`."""
    _load(path, _read(path, WEIGHTS, run)[0], model.state_dict())


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any], run: str
) -> None:
    """Everything a resume needs. position: JSON values (step, length of the metrics, sums). run: whose it is."""
    told = {"format": f"{CHECKPOINT}-2", "run": run, "position": position}
    _write(path, _training_tensors(model, optimizer), told)


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: str | None = None
) -> dict[str, Any]:
    """Put a checkpoint into model and optimiser; returns its position.

    RunError for a damaged file, and for one of another model or `run`; model and optimiser are then as before.
    """
    tensors, told = _read(path, CHECKPOINT, run)
    _load(path, tensors, _training_tensors(model, optimizer))
    return dict(told["position"])
