"""Notices that a run's folder is no longer the run's, before anything is written into it."""

from __future__ import annotations

import os
from pathlib import Path

from statemix.training.files import RunError, read_json

AGAIN = "the same command goes on from the last checkpoint"


class Guard:
    """What a run relies on while it trains: its folder, its lock, its configuration.

    lock: the descriptor of the lock file, or None on systems without such locks.
    """

    def __init__(self, folder: Path, config: Path, lock: int | None) -> None:
        self._folder, self._config, self._lock = folder, config, lock
        self._lock_path = folder / "lock"
        self._folder_id = _identity(folder.stat())
        self._content, self._version = read_json(config), _version(config)

    def check(self) -> None:
        """RunError that names what was removed, replaced or changed since the run began."""
        try:
            same = _identity(self._folder.stat()) == self._folder_id
        except OSError:
            same = False
        if not same:
            raise RunError(
                f"{self._folder} was removed or moved while the run was training: nothing more was written; the same "
                "command begins anew, and a folder that was moved goes on under its new name"
            )
        if self._lock is not None and not holds(self._lock, self._lock_path):
            raise RunError(
                f"{self._lock_path} was removed or replaced while the run was training, so that another process may "
                f"train here now: nothing more was written; {AGAIN}"
            )
        self._check_config()

    def _check_config(self) -> None:
        try:
            version = _version(self._config)
        except OSError:
            raise RunError(
                f"{self._config} was removed while the run was training: nothing more was written; {AGAIN}"
            ) from None
        if version == self._version:
            return
        try:
            same = read_json(self._config) == self._content
        except RunError:
            same = False
        if not same:
            raise RunError(
                f"{self._config} was changed while the run was training: nothing more was written; put back what it "
                f"was, or remove it, and {AGAIN}"
            )
        self._version = version  # copied over or touched, and still the same


def holds(lock: int, path: Path) -> bool:
    """Whether the file that is open as `lock` still is the one of that name."""
    try:
        return _identity(path.lstat()) == _identity(os.fstat(lock))
    except OSError:
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _version(path: Path) -> tuple[int, ...]:
    """Differs when a file was replaced or written to."""
    status = path.lstat()
    return *_identity(status), status.st_size, status.st_mtime_ns
