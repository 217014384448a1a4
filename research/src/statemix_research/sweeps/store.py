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
from statemix_research.sweeps.reading import last_lines, read_history, read_object, read_probe, read_summary

FINISHED, DIVERGED, FAILED, UNFINISHED, MISSING = "finished", "diverged", "failed", "unfinished", "missing"

DAMAGED = "damaged"
"""A run that came to its end and one of whose files is not as it was written, or that has no readable history."""

UNHASHED = ("name", "version", *RUNTIME_KEYS)
"""Settings that do not make another run."""

FORMER = {"step_time": "pace"}
"""Probes whose files had another name in older stores."""

_KEY = re.compile(r"[0-9a-f]{16}")


class Job(NamedTuple):
    """What a worker is given: the hash of the content, the kind of work, the content, and what is probed after it."""

    key: str
    kind: str
    content: dict[str, Any]
    probes: tuple[str, ...] = ()


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
    """What a store holds of a job: its status, and the content of its files, as far as they are there.

    Attributes:
        curves: The last line of each curve of metrics.
        damage: The file that is damaged, and how.
    """

    status: str
    summary: dict[str, Any] | None = None
    history: Sequence[dict[str, Any]] = ()
    curves: Mapping[str, Mapping[str, Any]] = {}
    probed: Mapping[str, Mapping[str, Any]] = {}
    damage: str = ""


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
        """Have a run that came to its end done again; its summary goes into its history. RunError when it cannot be."""
        self.note(key, "reopened", summary=self.summary(key))
        summary = self.folder(key) / "summary.json"
        with writing(summary):
            summary.unlink(missing_ok=True)  # another process may have been faster

    def probed(self, key: str, name: str) -> dict[str, Any] | None:
        """The result of a probe of a trained model, else None. RunError for a damaged file."""
        return read_probe(self.probe_path(key, name), name, key)

    def probe_path(self, key: str, name: str) -> Path:
        """Where the result of a probe lies."""
        former = self.folder(key) / f"{FORMER.get(name, name)}.json"
        return former if os.path.lexists(former) else self.folder(key) / f"{name}.json"

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
                if file.write(text if _ends_a_line(path) else b"\n" + text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())

    def failure(self, key: str) -> dict[str, Any] | None:
        """The last failure ("error", "traceback") of a run that has not come to its end since. RunError for a damaged
        history."""
        return failure_of(self.attempts(key))

    def keys(self) -> set[str]:
        """The names of all folders that may be runs. RunError for a store that cannot be read."""
        try:
            return {path.name for path in self.path.iterdir() if _KEY.fullmatch(path.name)}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from None

    def status(self, job: Job) -> str:
        """Finished, diverged, failed, unfinished (it goes on where it was), missing or damaged."""
        return self.read(job).status

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
            return self._with_status(job, found)
        except RunError as error:
            return found._replace(status=DAMAGED, damage=str(error))

    def _with_status(self, job: Job, found: Found) -> Found:
        folder, summary = self.folder(job.key), found.summary
        left = UNFINISHED if failure_of(found.history) is None else FAILED
        if summary is None:
            return found._replace(status=left)
        if not found.history and self.history_path(job.key).exists():
            raise RunError(f"{self.history_path(job.key)} is damaged: it is empty")
        check_config(folder / "config.json", job)
        curves = last_lines(folder / "metrics.jsonl", summary) if job.kind == "train" else {}
        every = {name: self.probed(job.key, name) for name in job.probes}
        probed = {name: one for name, one in every.items() if one is not None}
        status = (
            DIVERGED if summary["status"] == DIVERGED else FINISHED if len(probed) == len(every) else left
        )
        return found._replace(status=status, curves=curves, probed=probed)


def check_config(path: Path, job: Job) -> None:
    """RunError for a configuration that is damaged or another run's. A timing need not have one."""
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
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    here = {"run": key, "time": now, "host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps(seal({"event": event, **here, **facts})).encode() + b"\n"


def _ends_a_line(path: Path) -> bool:
    """Whether a file of lines ends with one: a kill may have cut it off."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
