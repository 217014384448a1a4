"""TensorBoard events beside the metrics, when asked for or when TensorBoard is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

from statemix.extras import missing
from statemix.training.files import RunError, writing
from statemix.training.guard import AGAIN


class NoEvents:
    """Writes nothing."""

    def add(self, entry: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Events:
    """Scalars of every metrics line."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]

        self._folder = folder
        with writing(folder):
            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, entry: dict[str, Any]) -> None:
        """The numbers of one line, under "train/…" or "test/length 16/…"."""
        if not self._folder.is_dir():
            raise RunError(f"{self._folder} was removed while the run was training: {AGAIN}")
        place = f"{entry['split']}/length {entry['length']}" if "split" in entry else entry["kind"]
        for name in ("loss", "accuracy", "macro_accuracy", "lr"):
            if entry.get(name) is not None:
                with writing(self._folder):
                    self._writer.add_scalar(f"{place}/{name}", entry[name], entry["step"])

    def close(self) -> None:
        """Write what is left, if the folder is still there."""
        if self._folder.is_dir():
            with contextlib.suppress(OSError):
                self._writer.close()


def events_of(wanted: str, folder: Path, step: int) -> Events | NoEvents:
    """ "on", "off", or "auto": when TensorBoard is installed. ImportError when "on" and it is not."""
    installed = importlib.util.find_spec("tensorboard") is not None
    if wanted == "on" and not installed:
        raise ImportError(f'training.tensorboard is "on", and {missing("tensorboard")}')
    return Events(folder, step) if installed and wanted != "off" else NoEvents()
