"""The folder of a run: what lies where, who may use it, and whether it is still the run's while it trains."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from statemix.training.checkpoint import run_of
from statemix.training.config import RUNTIME_KEYS, Config, flatten
from statemix.training.files import (
    BusyError,
    RunError,
    abandoned,
    digest_of,
    is_temporary,
    open_own,
    read_json,
    write_json,
    writing,
)

FINAL = ("finished", "stopped_early", "diverged")
"""The statuses of a run that has nothing left to do."""

STATUSES = (*FINAL, "interrupted")

UNNAMED = ("name", "version", "training.device", *RUNTIME_KEYS)
"""Settings that do not make the files of another run."""

RESUME = "run the same command to resume from the last checkpoint"


def run_id(content: Mapping[str, Any]) -> str:
    """What a run's files carry to show which run they belong to: the digest of its configuration, less `UNNAMED`."""
    return digest_of({key: value for key, value in flatten(content).items() if key not in UNNAMED})


class RunFolder:
    """Paths of one run, and the checks of its files."""

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

    def prepare(self, config: Config, resume: bool) -> None:
        """Make the folder, or check that it is this run's. RunError otherwise."""
        if not self.path.is_dir() and (self.path.exists() or self.path.is_symlink()):
            what = "a file" if self.path.exists() else "a symbolic link to nothing"
            raise RunError(f"{self.path} is {what}, expected a folder for the run")
        for path in [path for path in vars(self).values() if path != self.path] + [self.checkpoint.parent]:
            if path.is_symlink():
                raise RunError(
                    f"{path} is a symbolic link, expected a file or folder of the run's own: remove the link"
                )
        if self.config.exists():
            if not resume:
                raise RunError(f"{self.path} already holds a run, and resume is off: choose another folder")
            self._compare(config)
        elif self.path.is_dir() and not self._is_free(config, resume):
            raise RunError(
                f"{self.path} is not empty and not a run folder (no config.json): choose another, or put the file back"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise RunError(f"cannot write into {self.path}: permission denied")

    def _is_free(self, config: Config, resume: bool) -> bool:
        """Whether a folder without a configuration is empty, or holds a checkpoint of this run, which lost it."""
        there = {path.name for path in self.path.iterdir() if not is_temporary(path)} - {self.lock.name}
        own = resume and self.checkpoint.exists() and run_of(self.checkpoint) == run_id(config.to_dict())
        return not there or (own and there <= {path.name for path in vars(self).values()} | {"checkpoint"})

    def keep(self, config: Config) -> None:
        """Put the configuration in, if it is not there; RunError if another one is. Called under the lock."""
        if self.config.exists():
            self._compare(config)
        else:
            write_json(self.config, config.to_dict())

    def _compare(self, config: Config) -> None:
        here, wanted = flatten(read_json(self.config)), flatten(config.to_dict())
        here.setdefault("training.train_lengths", [])  # earlier versions did not write it
        ignored = {"version", *RUNTIME_KEYS}
        different = sorted(k for k in (here.keys() | wanted.keys()) - ignored if here.get(k) != wanted.get(k))
        if not different:
            return
        listed = "; ".join(
            f"{key}: {here.get(key)!r} in the folder, {wanted.get(key)!r} given" for key in different
        )
        hint = ""
        if "training.steps" in different and not set(different) - {"training.steps", "training.warmup"}:
            steps = wanted["training.steps"]
            place = shlex.quote(str(self.path.with_name(f"{self.path.name}-{steps}")))
            hint = (
                "; the steps of a run are fixed when it begins: its learning rates follow them, and no optimiser state "
                f"is kept at its end. Train {steps} steps in another folder: the same command with --out {place}"
            )
        raise RunError(f"{self.path} holds another run: {listed}{hint}")

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do, else None. RunError for a damaged or foreign one."""
        summary = self.last_summary()
        if summary is None or summary["status"] not in FINAL:
            return None
        if "run" in summary and self.config.exists() and summary["run"] != run_id(read_json(self.config)):
            raise RunError(f"{self.summary} belongs to another run than {self.config}")
        return summary

    def last_summary(self) -> dict[str, Any] | None:
        """The summary of how the run ended or was interrupted, else None. RunError for a damaged one."""
        if not self.summary.exists():
            return None
        summary = read_json(self.summary)
        if summary.get("status") not in STATUSES:
            known = ", ".join(map(repr, STATUSES))
            raise RunError(f"{self.summary}: status {summary.get('status')!r}, expected one of {known}")
        return summary

    def check_scores(self, summary: Mapping[str, Any]) -> None:
        """RunError when the summary of a training lacks its step or its accuracies."""
        scores = summary.get("accuracy")
        if not isinstance(summary.get("step"), int) or not isinstance(scores, dict):
            raise RunError(f"{self.summary} is damaged: it lacks 'step' or 'accuracy'")
        for length, score in scores.items():
            if not isinstance(score, (int, float)) or not 0 <= score <= 1:
                raise RunError(f"{self.summary}: accuracy {length!r} is {score!r}, expected 0 to 1")

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
        """Nobody else trains here meanwhile; gives a function that raises a RunError when the folder, its lock or its
        configuration was removed, replaced or changed since.

        The lock dies with the process. BusyError when it is taken.
        """
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield self._guard(None)
            return
        while True:
            with os.fdopen(open_own(self.lock), "rb") as file:
                with writing(self.lock):
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        raise BusyError(f"{self.path} is being trained by another process") from None
                if _identity(self.lock) == _identity(
                    file.fileno()
                ):  # else it was removed before it was locked
                    yield self._guard(file.fileno())
                    return

    def _guard(self, lock: int | None) -> Callable[[], None]:
        folder, kept = _identity(self.path), dict[str, Any]()

        def check() -> None:
            if _identity(self.path) != folder:
                raise RunError(
                    f"{self.path} was removed or moved while the run was training: run the same command to begin anew, "
                    "or give it the folder's new name to resume"
                )
            if lock is not None and _identity(self.lock) != _identity(lock):
                raise RunError(
                    f"{self.lock} was removed or replaced while the run was training, so another process may train "
                    f"here now: {RESUME}"
                )
            version = _identity(self.config, content=True)
            if version != kept.get("version"):
                self._check_config(kept, version)

        return check

    def _check_config(self, kept: dict[str, Any], version: object) -> None:
        """Remember the configuration, or compare it with the one that is remembered."""
        content = None
        with contextlib.suppress(RunError):
            content = read_json(self.config)
        if kept and kept["content"] != content:
            what = "changed" if self.config.exists() else "removed"
            raise RunError(
                f"{self.config} was {what} while the run was training: put back what it was, or remove it, and {RESUME}"
            )
        kept |= {"version": version, "content": content}


def _identity(file: Path | int, content: bool = False) -> tuple[int, ...]:
    """Which file this is and, with `content`, something that differs when it was written to; () for none."""
    try:
        status = os.fstat(file) if isinstance(file, int) else file.lstat() if content else file.stat()
    except OSError:
        return ()
    changed = (status.st_size, status.st_mtime_ns) if content else ()
    return status.st_dev, status.st_ino, *changed
