"""The store of runs: one folder a run, found by the hash of its configuration; nothing in it is ever removed.

Beside the files of any run (docs/design.md, "Runs") a folder holds `attempts.jsonl`, to which lines are only added:
when a worker began, how it ended, and the traceback of a failure.
"""

from __future__ import annotations

import datetime
import errno
import functools
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from statemix.training import RUNTIME_KEYS, RunFolder, flatten
from statemix.training.files import RunError, seal, writing
from statemix_research.sweeps.reading import last_lines, read_history, read_measure, read_object, read_summary

FINISHED, DIVERGED, FAILED, UNFINISHED, MISSING = "finished", "diverged", "failed", "unfinished", "missing"

DAMAGED = "damaged"
"""A run that was brought to its end, and one of its files is not as it was written; or that has no readable history."""

UNHASHED = ("name", "version", *RUNTIME_KEYS)
"""Settings that do not make another run."""


class Job(NamedTuple):
    """What a worker is given: the hash of the content, the kind of work, the content, and what is measured after."""

    key: str
    kind: str
    content: dict[str, Any]
    measures: tuple[str, ...] = ()


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of a job's content, less what is `UNHASHED`."""
    return Keys(kind, content).key()


HOLE = "\0"
"""Stands for what is free."""


class Keys:
    """The keys (`key_of`) of contents that differ in the settings `free` alone, such as "training.lr", in alphabetical
    order."""

    def __init__(self, kind: str, content: Mapping[str, Any], free: Sequence[str] = ()) -> None:
        told = {key: value for key, value in flatten(content).items() if key not in UNHASHED}
        text = _canonical([kind, told | dict.fromkeys(free, HOLE)])
        self._parts = text.split(_canonical(HOLE)) if free else [text]

    def key(self, values: Iterable[Any] = ()) -> str:
        """The key at these values of what is free."""
        text = self._parts[0]
        for value, part in zip(values, self._parts[1:], strict=True):
            text += _written(value) + part
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


_written = functools.lru_cache(maxsize=10_000, typed=True)(_canonical)


class Found(NamedTuple):
    """What a store holds of a job: where it stands, and the content of its files, each as far as it is there."""

    status: str
    summary: dict[str, Any] | None = None
    history: Sequence[dict[str, Any]] = ()
    curves: Mapping[str, Mapping[str, Any]] = {}
    """The last line of each curve of metrics."""
    measured: Mapping[str, Mapping[str, Any]] = {}
    damage: str = ""
    """The file that is damaged, and how."""


class Store:
    """A folder of runs."""

    def __init__(self, path: str | Path) -> None:
        """ValueError when the path is a file."""
        self.path = Path(path).absolute()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"store: got {path}, which is a file, expected a folder")

    def folder(self, key: str) -> Path:
        """Where a run lies, whether or not it is there."""
        return self.path / key

    def summary(self, key: str) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do, else None. RunError for a damaged one."""
        return RunFolder(self.folder(key)).finished()

    def reopen(self, key: str) -> None:
        """A run that is at its end is to be done again: its summary goes into its history. RunError when it cannot."""
        self.note(key, "reopened", summary=self.summary(key))
        summary = RunFolder(self.folder(key)).summary
        with writing(summary):
            summary.unlink(missing_ok=True)  # another process may have been faster

    def measured(self, key: str, name: str) -> dict[str, Any] | None:
        """What was measured on a trained model, else None. RunError for a damaged file."""
        return read_measure(self.measure_path(key, name), name, key)

    def measure_path(self, key: str, name: str) -> Path:
        """Where a measurement lies."""
        return self.folder(key) / f"{name}.json"

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """The lines of the run's history, less one that was cut off by a kill. RunError for a damaged one."""
        return read_history(self.history_path(key), key)

    def history_path(self, key: str) -> Path:
        """Where the history of a run lies."""
        return self.folder(key) / "attempts.jsonl"

    def note(self, key: str, event: str, **facts: Any) -> None:
        """Add a line to the run's history, in one write and safe on the disk. RunError when it cannot be written."""
        path, text = self.history_path(key), history_line(key, event, **facts)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                if file.write(text if _whole(path) else b"\n" + text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())

    def failure(self, key: str) -> dict[str, Any] | None:
        """The last failure of a run ("error", "traceback"), unless it came to an end all the same. RunError for a
        damaged history."""
        return failure_of(self.attempts(key))

    def keys(self) -> set[str]:
        """The names of all folders that may be runs. RunError for a store that cannot be read."""
        try:
            return {path.name for path in self.path.iterdir() if _KEY.fullmatch(path.name)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from None

    def read(self, job: Job) -> Found:
        """Everything that is kept of a job, every file checked."""
        folder = self.folder(job.key)
        if not os.path.lexists(folder):
            return Found(MISSING)
        found = Found(DAMAGED)
        try:
            if not folder.is_dir():
                raise RunError(f"{folder} is not a folder, expected one of a run")
            found = found._replace(summary=read_summary(folder / "summary.json", job.kind))
            found = found._replace(history=self.attempts(job.key))
            return self._standing(job, found)
        except RunError as error:
            return found._replace(status=DAMAGED, damage=str(error))

    def _standing(self, job: Job, found: Found) -> Found:
        """With the status: finished, diverged, failed, unfinished (it goes on where it was)."""
        folder, summary = self.folder(job.key), found.summary
        if summary is None:
            return found._replace(status=UNFINISHED if failure_of(found.history) is None else FAILED)
        if not found.history and self.history_path(job.key).exists():
            raise RunError(f"{self.history_path(job.key)} is damaged: it is empty")
        check_config(folder / "config.json", job)
        curves = last_lines(folder / "metrics.jsonl", summary) if job.kind == "train" else {}
        every = {name: self.measured(job.key, name) for name in job.measures}
        measured = {name: one for name, one in every.items() if one is not None}
        status = FINISHED
        if summary["status"] == DIVERGED:
            status = DIVERGED
        elif len(measured) < len(every):
            status = UNFINISHED if failure_of(found.history) is None else FAILED
        return found._replace(status=status, curves=curves, measured=measured)

    def status(self, job: Job) -> str:
        """Where a job stands: finished, diverged, failed, unfinished (it goes on where it was), missing or damaged."""
        return self.read(job).status


_KEY = re.compile(r"[0-9a-f]{16}")


def check_config(path: Path, job: Job) -> None:
    """RunError for a configuration that is damaged or another's. A timing need not have one."""
    if job.kind != "train" and not path.exists():
        return
    content = read_object(path)
    try:
        key = key_of(job.kind, content)
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if key != job.key:
        raise RunError(f"{path} is damaged: its content has the key {key}, expected {job.key}")


def failure_of(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last failure in a history, unless the run came to an end all the same."""
    last = next((line for line in reversed(history) if line["event"] != "started"), None)
    return {"traceback": "", **last} if last is not None and last["event"] == FAILED else None


def history_line(key: str, event: str, **facts: Any) -> bytes:
    """A line of the history of a run, with its digest."""
    here = {"run": key, "time": now(), "host": socket.gethostname(), "pid": os.getpid()}
    line = {"event": event, **here, **facts}
    return json.dumps(seal(line)).encode() + b"\n"


def _whole(path: Path) -> bool:
    """Whether a file of lines ends with one: a kill may have cut it off."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
