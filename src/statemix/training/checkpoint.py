"""Checkpoints: weights, optimiser and position in one safetensors file, so that no kill can mix two of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from statemix.extras import missing
from statemix.training.digest import DIGEST, digest_of, unseal
from statemix.training.files import MissingFileError, RunError, read_bytes, replace_file

FORMAT = "statemix-checkpoint-1"
WEIGHTS_FORMAT = "statemix-weights-1"

METADATA = "__metadata__"
"""Where the header of a safetensors file keeps text beside the tensors' places."""

STATE = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter: a count, and two moments of the parameter's shape."""


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
    """A safetensors file whose metadata hold a digest of everything else; equal content makes equal bytes."""
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    header, data = _parts(_safetensors().torch.save(plain))
    sealed = {**metadata, DIGEST: digest_of({**metadata, METADATA: header}, data)}
    text = json.dumps({METADATA: sealed, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    content = b"".join((len(text).to_bytes(8, "little"), text, data))
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def _parts(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header and the data of a safetensors file. ValueError for what is none."""
    end = 8 + int.from_bytes(content[:8], "little")
    if not 8 < end <= len(content):
        raise ValueError("it has no header")
    header = json.loads(content[8:end])
    if not isinstance(header, dict) or not isinstance(header.get(METADATA, {}), dict):
        raise ValueError("its header is no JSON object")
    return header, memoryview(content)[end:]


def _read(path: Path, form: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of ours: RunError for a missing, damaged or foreign one."""
    library = _safetensors()
    content, metadata = _verified(path, form)
    try:
        return library.torch.load(content), metadata
    except (library.SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise RunError(f"{path} is damaged or no safetensors file: {error}") from None


def _verified(path: Path, form: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the metadata of a file whose digest fits; files of earlier versions have none."""
    try:
        content = read_bytes(path)
        header, data = _parts(content)
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} is damaged or no safetensors file: {reason}") from None
    metadata = header.pop(METADATA, {})
    foreign = metadata.get("format") != form
    if not foreign or DIGEST in metadata:
        try:
            unseal({**metadata, METADATA: header}, data)
        except ValueError as error:
            raise RunError(f"{path} is damaged or no safetensors file: {error}") from None
    if foreign:
        found = metadata.get("format")
        raise RunError(
            f"{path}: format {found!r}, expected {form!r}: not written by this version of statemix"
        )
    return content, metadata


def _check_run(path: Path, metadata: Mapping[str, Any], run: str | None) -> None:
    """RunError for a file of another run; files of earlier versions do not tell."""
    if run is not None and metadata.get("run", run) != run:
        raise RunError(f"{path} belongs to another run than the config.json of its folder")


def run_of(path: Path) -> str | None:
    """Which run a checkpoint belongs to (`run_id`), None in earlier versions'. RunError as `load_checkpoint`."""
    return _verified(path, FORMAT)[1].get("run")


def step_of(path: Path) -> int:
    """The step at which a checkpoint was made. RunError as `load_checkpoint`."""
    return int(_position(path, _verified(path, FORMAT)[1])["step"])


def save_weights(path: Path, model: nn.Module, run: str | None = None) -> None:
    """The weights of a model, for any reader of safetensors; `run`: whose they are (`run_id`)."""
    told = {} if run is None else {"run": run}
    _write(path, model.state_dict(), {"format": WEIGHTS_FORMAT, **told})


def load_weights(path: Path, model: nn.Module, run: str | None = None) -> None:
    """Put saved weights into a model of the same shapes. RunError names what differs, or a file of another `run`."""
    tensors, metadata = _read(path, WEIGHTS_FORMAT)
    _check_model(path, tensors, model)
    _check_run(path, metadata, run)
    model.load_state_dict(tensors)


def _check_model(path: Path, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    wanted = model.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        what = "lacks" if name in wanted else "has the unknown"
        raise RunError(f"{path} {what} weight {name!r}: it belongs to another model")
    for name, tensor in tensors.items():
        _check_tensor(path, f"weight {name!r}", tensor, wanted[name].shape, wanted[name].dtype)


def _check_tensor(path: Path, what: str, tensor: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    if tensor.shape != shape:
        came, expected = list(tensor.shape), list(shape)
        raise RunError(f"{path}: {what} has shape {came}, expected {expected}: another model's")
    if tensor.dtype != dtype:
        raise RunError(f"{path}: {what} has dtype {tensor.dtype}, expected {dtype}")


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: dict[str, Any],
    run: str | None = None,
) -> None:
    """Everything a resume needs.

    position: JSON values (the step, the length of the metrics, running sums). run: whose it is (`run_id`).
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    told = {} if run is None else {"run": run}
    _write(path, tensors, {"format": FORMAT, "position": json.dumps(position), **told})


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, run: str | None = None
) -> dict[str, Any]:
    """Put a checkpoint into model and optimiser; returns its position.

    RunError for a damaged or foreign file, and for one of another `run`; model and optimiser are then as before.
    """
    tensors, metadata = _read(path, FORMAT)
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        index, _, key = rest.partition(".")
        if owner == "model":
            weights[rest] = tensor
        elif owner == "optimizer" and index.isdecimal() and key in STATE:
            state.setdefault(int(index), {})[key] = tensor
        else:
            raise RunError(f"{path} has the unknown tensor {name!r}")
    _check_model(path, weights, model)
    position = _position(path, metadata)
    _check_optimizer(path, state, optimizer, position["step"])
    _check_run(path, metadata, run)
    model.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return position


def _check_optimizer(
    path: Path, state: Mapping[int, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer, steps: int
) -> None:
    """Every parameter has its three tensors, the moments as the parameter itself, and has been stepped."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index in sorted(state.keys() - set(range(len(parameters)))):
        raise RunError(f"{path} has optimizer state {index}, expected {len(parameters)}: another model's")
    for index, parameter in enumerate(parameters):
        for key in STATE:
            tensor = state.get(index, {}).get(key)
            if tensor is None:
                raise RunError(f"{path} lacks 'optimizer.{index}.{key}'")
            like = torch.zeros(()) if key == "step" else parameter
            _check_tensor(path, f"'optimizer.{index}.{key}'", tensor, like.shape, like.dtype)
        count = state[index]["step"].item()
        if not 1 <= count <= steps:
            raise RunError(f"{path}: 'optimizer.{index}.step' is {count}, expected 1 to {steps}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


POSITION: dict[str, tuple[Callable[[Any], bool], str]] = {
    "step": (lambda value: _whole(value) and value > 0, "a whole number of at least 1"),
    "metrics": (_whole, "a number of bytes"),
    "best_accuracy": (lambda value: value is None or (_number(value) and 0 <= value <= 1), "0 to 1 or null"),
    "seconds": (lambda value: _number(value) and 0 <= value < math.inf, "a number of seconds"),
    "totals": (
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(_number, value)),
        "three numbers",  # a loss that is no longer finite is one of them
    ),
}
"""What a position has to hold, and of what kind."""


def _position(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The position of a checkpoint, every entry of its kind."""
    try:
        position = json.loads(metadata.get("position", ""))
    except (TypeError, ValueError, RecursionError):
        raise RunError(f"{path} is damaged: its position is not JSON") from None
    if not isinstance(position, dict):
        raise RunError(f"{path} is damaged: its position is not a JSON object")
    for key, (fits, expected) in POSITION.items():
        if key not in position or not fits(position[key]):
            raise RunError(f"{path}: position {key!r} is {position.get(key)!r}, expected {expected}")
    return position
