"""Runs as copies of a trained one, with other settings and other results."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from statemix.training.files import read_json, write_json


def copy_run(source: Path, folder: Path, settings: dict[str, Any] | None = None, **summary: Any) -> Path:
    """A copy of a run; settings by dotted name ("training.seed"), and what its summary says instead."""
    shutil.copytree(source, folder, copy_function=os.link)  # what is written below replaces its link
    config = read_json(folder / "config.json")
    for key, value in (settings or {}).items():
        section, _, name = key.rpartition(".")
        (config[section] if section else config)[name] = value
    write_json(folder / "config.json", config)
    write_json(folder / "summary.json", read_json(folder / "summary.json") | summary)
    return folder
