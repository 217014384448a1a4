"""The folder of a run: what lies where, who may use it, and what is wrong with a stranger's."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from statemix.training.config import MANNER, Config, flatten
from statemix.training.files import TEMPORARY, BusyError, RunError, abandoned, read_json, write_json, writing

FINAL = ("finished", "stopped_early", "diverged")
"""The statuses of a run that has nothing left to do."""


class RunFolder:
    """Paths of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.weights = self.path / "model.safetensors"
        self.failure = self.path / "failure.txt"
        self.checkpoint = self.path / "checkpoint" / "state.safetensors"

    def prepare(self, config: Config, resume: bool) -> None:
        """Make the folder, or check that it is this run's. RunError otherwise."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, expected a folder for the run")
        if self.config.exists():
            if not resume:
                raise RunError(f"{self.path} already holds a run, and resume is off: choose another folder")
            self._compare(config)
        elif self.path.is_dir() and any(not _ours(child) for child in self.path.iterdir()):
            raise RunError(f"{self.path} is not empty and not a run folder (no config.json): choose another")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise RunError(f"cannot write into {self.path}: permission denied")

    def keep(self, config: Config) -> None:
        """Put the configuration in, if it is not there; RunError if another one is. Called under the lock."""
        if self.config.exists():
            self._compare(config)
        else:
            write_json(self.config, config.to_dict())

    def _compare(self, config: Config) -> None:
        here, wanted = flatten(read_json(self.config)), flatten(config.to_dict())
        added: dict[str, Any] = {
            "training.train_lengths": []
        }  # settings that older versions did not write, as they then were
        here = {**added, **here}
        different = sorted(
            key for key in here.keys() | wanted.keys()
            if key not in ("version", *MANNER) and here.get(key) != wanted.get(key)
        )  # fmt: skip
        if different:
            listed = "; ".join(
                f"{key}: {here.get(key)!r} there, {wanted.get(key)!r} asked" for key in different
            )
            raise RunError(f"{self.path} holds another run: {listed}")

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do, else None."""
        if not self.summary.exists():
            return None
        summary = read_json(self.summary)
        return summary if summary.get("status") in FINAL else None

    def remove_checkpoint(self) -> None:
        """Called when the weights and the summary are safe."""
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """Temporary files of a process that was killed while it wrote. Called under the lock."""
        for path in self.path.rglob(TEMPORARY):
            if abandoned(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains here meanwhile. The lock dies with the process. RunError when it is taken."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield
            return
        path = self.path / "lock"
        with writing(path):
            file = path.open("w")
        with file:
            with writing(path):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BusyError(f"{self.path} is being trained by another process") from None
            yield


def _ours(path: Path) -> bool:
    """Whether a file may lie in a folder that has no configuration yet."""
    return path.name == "lock" or path.match(TEMPORARY)
