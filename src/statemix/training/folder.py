"""The folder of a run: what lies where, who may use it, and whether it is still the run's while it trains."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from statemix.training.checkpoint import read_metadata
from statemix.training.config import RUNTIME_KEYS, Configuration, flatten
from statemix.training.files import (
    BusyError,
    RunError,
    abandoned,
    check_in_place,
    digest_of,
    is_temporary,
    read_json,
    write_json,
    writing,
)  # fmt: skip

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

FINAL = ("finished", "stopped_early", "diverged")
"""The statuses of a run that has nothing left to do."""

STATUSES = (*FINAL, "interrupted")

UNNAMED = ("name", "version", "training.device")
"""Settings that do not make the files of another run, beside those of how it is carried out."""


def run_id(content: Mapping[str, Any], runtime_keys: Sequence[str] = RUNTIME_KEYS) -> str:
    """What a run's files carry to show which run they belong to: the digest of its configuration.

    `UNNAMED` settings and those of how a run is carried out (`runtime_keys`) are left out.
    """
    unnamed = {*UNNAMED, *runtime_keys}
    return digest_of({key: value for key, value in flatten(content).items() if key not in unnamed})


class RunFolder:
    """Paths of one run, and the checks of its files."""

    runtime_keys: Sequence[str] = RUNTIME_KEYS
    """Settings with which a run may be resumed though they differ."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.weights = self.path / "model.safetensors"
        self.failure = self.path / "failure.txt"
        self.checkpoint = self.path / "checkpoint" / "state.safetensors"
        self.events = self.path / "tensorboard"
        self.lock = self.path / "lock"

    def prepare(self, config: Configuration, resume: bool) -> None:
        """Make the folder, or check that it is this run's. RunError otherwise."""
        if not self.path.is_dir() and (self.path.exists() or self.path.is_symlink()):
            what = "a file" if self.path.exists() else "a symbolic link to nothing"
            raise RunError(f"{self.path} is {what}, expected a folder for the run")
        for path in [path for path in vars(self).values() if path != self.path] + [self.checkpoint.parent]:
            if path.is_symlink():
                raise RunError(
                    f"{path} is a symbolic link, expected the run's own file or folder: remove the link"
                )
        if self.config.exists():
            if not resume:
                raise RunError(f"{self.path} already holds a run, and resume is off: choose another folder")
        elif self.path.is_dir() and not self._is_free(config, resume):
            raise RunError(
                f"{self.path} is not empty and not a run folder (no config.json): choose another, or put the file back"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise RunError(f"cannot write into {self.path}: permission denied")

    def _is_free(self, config: Configuration, resume: bool) -> bool:
        """Whether a folder without a configuration is empty, or holds a checkpoint of this run, which lost it."""
        there = {path.name for path in self.path.iterdir() if not is_temporary(path)} - {self.lock.name}
        own = (
            resume
            and self.checkpoint.exists()
            and read_metadata(self.checkpoint).get("run") == run_id(config.to_dict(), self.runtime_keys)
        )
        return not there or (own and there <= {path.name for path in vars(self).values()} | {"checkpoint"})

    def keep(self, config: Configuration) -> None:
        """Put the configuration in, if it is not there; RunError if another one is. Called under the lock."""
        if not self.config.exists():
            return write_json(self.config, config.to_dict())
        here, wanted = flatten(read_json(self.config)), flatten(config.to_dict())
        if "training.train_lengths" in wanted:
            here.setdefault("training.train_lengths", [])  # earlier versions did not write it
        ignored = {"version", *self.runtime_keys}
        different = sorted(k for k in (here.keys() | wanted.keys()) - ignored if here.get(k) != wanted.get(k))
        listed = [f"{key}: {here.get(key)!r} in the folder, {wanted.get(key)!r} given" for key in different]
        if "training.steps" in different and set(different) <= {"training.steps", "training.warmup"}:
            place = shlex.quote(str(self.path.with_name(f"{self.path.name}-{wanted['training.steps']}")))
            listed.append(
                "the steps of a run are fixed when it begins, as its learning rates follow them: train it in another "
                f"folder, the same command with --out {place}"
            )
        if different:
            raise RunError(f"{self.path} holds another run: {'; '.join(listed)}")
        return None

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do, else None. RunError for a damaged or foreign one."""
        if not self.summary.exists():
            return None
        summary = read_json(self.summary)
        status = summary.get("status")
        if status not in STATUSES:
            known = ", ".join(map(repr, STATUSES))
            raise RunError(f"{self.summary}: status {status!r}, expected one of {known}")
        if status not in FINAL:
            return None
        if (
            "run" in summary
            and self.config.exists()
            and summary["run"] != run_id(read_json(self.config), self.runtime_keys)
        ):
            raise RunError(f"{self.summary} belongs to another run than {self.config}")
        return summary

    def remove_checkpoint(self) -> None:
        """Called when the weights and the summary are safe. Files of others beside the checkpoint stay."""
        saved = self.checkpoint.parent
        with contextlib.suppress(OSError):
            for path in (self.checkpoint, *filter(is_temporary, saved.iterdir())):
                path.unlink(missing_ok=True)
            saved.rmdir()

    def remove_leftovers(self) -> None:
        """Temporary files of a process that was killed while it wrote. Called under the lock."""
        for path in self.path.rglob(".*.tmp"):
            if not path.is_dir() and abandoned(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Nobody else trains here meanwhile; gives a function that raises a RunError once the lock is not in its place,
        so that another process may train here. The lock dies with the process. BusyError when it is taken.
        """
        with writing(self.lock):
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self.lock, flags, 0o666)
        with os.fdopen(descriptor, "rb"):
            if fcntl is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BusyError(f"{self.path} is being trained by another process") from None
                except OSError as error:
                    raise RunError(f"cannot lock {self.lock}: {error.strerror}") from None
            check_in_place(self.lock, descriptor)
            yield functools.partial(check_in_place, self.lock, descriptor)
