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

from statemix.extras import missing
from statemix.training.files import DIGEST, MissingFileError, RunError, digest_of, read_bytes, replace_file

CHECKPOINT, WEIGHTS = "statemix-checkpoint", "statemix-weights"

STATE = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter: a count, and two moments of the parameter's shape."""

POSITION = {"step", "metrics", "seconds", "totals"}
"""What a position has to hold."""


def require_safetensors() -> Any:
    """The library; ImportError that says how to install it."""
    try:
        import safetensors.torch
    except ImportError:
        raise ImportError(missing("safetensors")) from None
    return safetensors


def _write(path: Path, tensors: Mapping[str, Tensor], told: dict[str, Any]) -> None:
    """Equal content makes equal bytes."""
    save = require_safetensors().torch.save
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
    library = require_safetensors()
    wrong = (library.SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError)
    try:
        content = read_bytes(path)
        metadata, header, data = _parts(content)
        if "statemix" in metadata:
            told = json.loads(metadata["statemix"])
            if told.pop(DIGEST, None) != digest_of({**told, "tensors": header}, data):
                raise ValueError("its content does not fit the digest that was written with it")
        else:  # a file of format 1
            told = {key: json.loads(text) if key == "position" else text for key, text in metadata.items()}
        tensors: dict[str, Tensor] = library.torch.load(content)
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
    return tensors, told


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = "lacks" if name in expected else "has the unknown"
        raise RunError(f"{path} {what} tensor {name!r}: it belongs to another model")
    for name, tensor in tensors.items():
        found, wanted = ((list(one.shape), one.dtype) for one in (tensor, expected[name]))
        if found != wanted:
            raise RunError(f"{path}: {name!r} is {found[1]} {found[0]}, expected {wanted[1]} {wanted[0]}")


def run_of(path: Path) -> str | None:
    """Which run a checkpoint belongs to, None in the earliest versions'. RunError as `load_checkpoint`."""
    return _read(path, CHECKPOINT)[1].get("run")


def step_of(path: Path) -> int:
    """The step at which a checkpoint was made. RunError as `load_checkpoint`."""
    return int(_position(path, _read(path, CHECKPOINT)[1])["step"])


def save_weights(path: Path, model: nn.Module, run: str) -> None:
    """The weights of a model, for any reader of safetensors; run: whose they are (`run_id`)."""
    _write(path, model.state_dict(), {"format": f"{WEIGHTS}-2", "run": run})


def load_weights(path: Path, model: nn.Module, run: str | None = None) -> None:
    """Put saved weights into a model of the same shapes. RunError names what differs, or a file of another `run`."""
    tensors, _ = _read(path, WEIGHTS, run)
    _check_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any], run: str
) -> None:
    """Everything a resume needs. position: JSON values (step, length of the metrics, sums). run: whose it is."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    _write(path, tensors, {"format": f"{CHECKPOINT}-2", "run": run, "position": position})


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: str | None = None
) -> dict[str, Any]:
    """Put a checkpoint into model and optimiser; returns its position.

    RunError for a damaged file, and for one of another model or `run`; model and optimiser are then as before.
    """
    tensors, told = _read(path, CHECKPOINT, run)
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        shapes = dict.fromkeys(STATE, parameter) | {"step": torch.zeros(())}
        expected |= {f"optimizer.{index}.{key}": tensor for key, tensor in shapes.items()}
    _check_tensors(path, tensors, expected)
    position = _position(path, told)
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    state = {k: {key: tensors[f"optimizer.{k}.{key}"] for key in STATE} for k in range(len(parameters))}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return position


def _position(path: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    position = told.get("position")
    if not isinstance(position, dict) or not position.keys() >= POSITION:
        raise RunError(
            f"{path} is damaged: its position is {position!r}, expected {', '.join(sorted(POSITION))}"
        )
    return position
