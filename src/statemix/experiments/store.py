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
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from statemix.training.config import MANNER, flatten
from statemix.training.files import writing
from statemix.training.folder import RunFolder

FINISHED, DIVERGED, FAILED, UNFINISHED, MISSING = "finished", "diverged", "failed", "unfinished", "missing"

UNHASHED = ("name", "version", *MANNER)
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
    """The keys (`key_of`) of contents that differ in the settings `free` alone, named as "training.lr", in alphabetical order.
    """

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
        """What was measured on a trained model, else None."""
        path = self.measure_path(key, name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def measure_path(self, key: str, name: str) -> Path:
        """Where a measurement lies."""
        return self.folder(key) / f"{name}.json"

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """The lines of the run's history, less one that was cut off by a kill."""
        path = self.folder(key) / "attempts.jsonl"
        if not path.exists():
            return []
        return list(_lines(path))

    def note(self, key: str, event: str, **facts: Any) -> None:
        """Add a line to the run's history, in one write and safe on the disk. RunError when it cannot be written."""
        path = self.folder(key) / "attempts.jsonl"
        line = {"event": event, "time": now(), "host": socket.gethostname(), "pid": os.getpid(), **facts}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab", buffering=0) as file:
                text = json.dumps(line).encode() + b"\n"
                if file.write(text if _whole(path) else b"\n" + text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())

    def failure(self, key: str) -> dict[str, Any] | None:
        """The last failure of a run ("error", "traceback"), unless it came to an end all the same."""
        last = next((line for line in reversed(self.attempts(key)) if line["event"] != "started"), None)
        return last if last is not None and last["event"] == FAILED else None

    def status(self, job: Job) -> str:
        """Where a job stands: finished, diverged, failed, unfinished (it goes on where it was) or missing."""
        if not self.folder(job.key).is_dir():
            return MISSING
        summary = self.summary(job.key)
        if summary is not None and all(self._has(job, name, summary) for name in job.measures):
            return DIVERGED if summary["status"] == DIVERGED else FINISHED
        return FAILED if self.failure(job.key) is not None else UNFINISHED

    def _has(self, job: Job, measure: str, summary: Mapping[str, Any]) -> bool:
        return summary["status"] == DIVERGED or self.measure_path(job.key, measure).exists()


def _whole(path: Path) -> bool:
    """Whether a file of lines ends with one: a kill may have cut it off."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # cut off by a kill


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
