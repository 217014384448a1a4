"""Runs as copies of a trained one, with other settings and other results."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from statemix.training.files import read_json, write_json


def copy_run(source: Path, folder: Path, settings: dict[str, Any] | None = None, **summary: Any) -> Path:
    """A copy of a run; settings by dotted name ("training.seed"), and what its summary says instead."""
    shutil.copytree(source, folder, copy_function=os.link)  # what is written below replaces its link
    config = read_json(folder / "config.json")
    for key, value in (settings or {}).items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    write_json(folder / "config.json", config)
    _disown(folder / "model.safetensors")
    told = {key: value for key, value in read_json(folder / "summary.json").items() if key != "run"}
    write_json(folder / "summary.json", told | summary)
    return folder


def _disown(weights: Path) -> None:
    """Write weights as those of no run in particular, which fit any configuration of their model."""
    tensors = load_file(weights)
    weights.unlink()
    save_file(tensors, weights, {"format": "statemix-weights-1"})
