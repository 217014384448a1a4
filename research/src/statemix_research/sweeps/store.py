"""The store of runs: one folder a run, found by the hash of its configuration; nothing in it is ever removed.

Beside the files of any run (docs/design.md, "Runs") a folder holds `attempts.jsonl`, to which lines are only added:
when a worker began, how it ended, and the traceback of a failure.
"""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from statemix.training import RUNTIME_KEYS, RunFolder, flatten
from statemix.training.files import RunError, read_bytes, read_json, seal, unseal, writing
from statemix_research.sweeps import fields
from statemix_research.sweeps.probes import PROBES

FINISHED, DIVERGED, FAILED, UNFINISHED, MISSING = "finished", "diverged", "failed", "unfinished", "missing"

DAMAGED = "damaged"
"""A run that came to its end and one of whose files is not as it was written, or that has no readable history."""

UNHASHED = ("name", "version", *RUNTIME_KEYS)
"""Settings that do not make another run."""

FORMER = {"step_time": "pace"}
"""Probes whose files had another name in older stores."""

FACTS = {"ended": ("status", "hardware"), "failed": ("error",)}
"""What a line of a history has, by its event, beside the event and the time."""

_KEY = re.compile(r"[0-9a-f]{16}")


class Job(NamedTuple):
    """What a worker is given: the hash of the content, the kind of work, the content, and what is probed after it."""

    key: str
    kind: str
    content: dict[str, Any]
    probes: tuple[str, ...] = ()


ADDED = {
    "mixer.hard": False, "mixer.learned_initial_state": False, "model.mlp": True, "training.eval_tokens": 0,
}  # fmt: skip
"""Settings that came after runs were stored: left out at these values, so that the runs keep their keys."""


def key_of(kind: str, content: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of a job's content, less what is `UNHASHED` or `ADDED`."""
    flat = flatten(content).items()
    told = {key: value for key, value in flat if key not in UNHASHED and ADDED.get(key, ...) != value}
    text = json.dumps([kind, told], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Found:
    """What a store holds of a job: its status, and the content of its files, as far as they are there.

    Attributes:
        curves: The last line of each curve of metrics.
        damage: The file that is damaged, and how.
    """

    status: str = MISSING
    summary: dict[str, Any] | None = None
    history: Sequence[dict[str, Any]] = ()
    curves: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    probed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
        path, gives = self.probe_path(key, name), PROBES[name].gives
        if not _is_there(path):
            return None
        result = read_json(path)
        with _damage(path):
            fields.check_fields(result, {**fields.PROBED, "run": fields.one_of(key)}, gives)
        return {one: result[one] for one in gives}

    def probe_path(self, key: str, name: str) -> Path:
        """Where the result of a probe lies."""
        former = self.folder(key) / f"{FORMER.get(name, name)}.json"
        return former if os.path.lexists(former) else self.folder(key) / f"{name}.json"

    def attempts(self, key: str) -> list[dict[str, Any]]:
        """The lines of the run's history, less one that was cut off by a kill. RunError for a damaged one."""
        path, lines = self.history_path(key), []
        for number, text in enumerate(_read(path).split(b"\n") if _is_there(path) else (), 1):
            if _is_cut_off(text):
                continue
            with _damage(f"{path} line {number}"):
                line = unseal(fields.parse(text))
                needed = ("event", "time", *FACTS.get(str(line.get("event")), ()))
                fields.check_fields(line, {**fields.EVENT, "run": fields.one_of(key)}, needed)
            lines.append(line)
        return lines

    def history_path(self, key: str) -> Path:
        """Where the history of a run lies."""
        return self.folder(key) / "attempts.jsonl"

    def note(self, key: str, event: str, **facts: Any) -> None:
        """Add a line to the run's history, in one write and safe on the disk. RunError when it cannot be written."""
        path, text = self.history_path(key), history_line(key, event, **facts)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b", buffering=0) as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read() != b"\n":  # a kill cut the last line off
                        text = b"\n" + text
                if file.write(text) < len(text):
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

    def read(self, job: Job, *, under_way: bool = False) -> Found:
        """Everything that is kept of a job, every file checked; the configuration of a run `under_way` only if so
        wished: a sweep leaves that to the worker."""
        found = Found()
        if os.path.lexists(self.folder(job.key)):
            try:
                self._fill(found, job, under_way)
            except RunError as error:
                found.status, found.damage = DAMAGED, str(error)
        return found

    def _fill(self, found: Found, job: Job, under_way: bool) -> None:
        """Read all files of a run. RunError for the first that is damaged."""
        folder, history = RunFolder(self.folder(job.key)), self.history_path(job.key)
        if not folder.path.is_dir():
            raise RunError(f"{folder.path} is not a folder, expected one of a run")
        found.summary, found.history = _read_summary(folder, job.kind), self.attempts(job.key)
        found.status = UNFINISHED if failure_of(found.history) is None else FAILED
        if found.summary is None:
            if under_way and found.status == UNFINISHED and folder.config.exists():
                _check_config(folder.config, job)
            return
        if not found.history and history.exists():
            raise RunError(f"{history} is damaged: it is empty")
        if job.kind == "train" or folder.config.exists():  # a timing need not have one
            _check_config(folder.config, job)
        if job.kind == "train":
            found.curves = _last_lines(folder.metrics, found.summary)
        every = {name: self.probed(job.key, name) for name in job.probes}
        found.probed = {name: one for name, one in every.items() if one is not None}
        if found.summary["status"] == DIVERGED:
            found.status = DIVERGED
        elif len(found.probed) == len(every):
            found.status = FINISHED


def _check_config(path: Path, job: Job) -> None:
    """RunError for a configuration that is missing, damaged or another run's."""
    _is_there(path)
    content = read_json(path)
    with _damage(path):
        if (key := key_of(job.kind, content)) != job.key:
            raise ValueError(f"its content has the key {key}, expected {job.key}")


def failure_of(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last failure in a history, unless the run came to an end all the same."""
    last = next((line for line in reversed(history) if line["event"] != "started"), None)
    return {"traceback": "", **last} if last is not None and last["event"] == FAILED else None


def history_line(key: str, event: str, **facts: Any) -> bytes:
    """A line of the history of a run, with its digest."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    here = {"run": key, "time": now, "host": socket.gethostname(), "pid": os.getpid()}
    return json.dumps(seal({"event": event, **here, **facts})).encode() + b"\n"


def _is_there(path: Path) -> bool:
    """Whether there is a file. RunError for a link, which is no file of the run's own."""
    try:
        if path.is_symlink():
            raise RunError(f"{path} is a symbolic link, expected a file of the run's own")
        return path.exists()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _read_summary(folder: RunFolder, kind: str) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do, else None. RunError for a damaged one."""
    if not _is_there(folder.summary):
        return None
    summary = folder.finished()
    if summary is not None:
        needed = (*fields.NEEDED[kind], *(("accuracy",) if kind == "train" else ()))
        with _damage(folder.summary):
            fields.check_fields(summary, {**fields.SUMMARY, "accuracy": fields.SCORES}, needed)
    return summary


def _is_cut_off(text: bytes) -> bool:
    """Whether a line is empty or the beginning of one: printable, as a line is, and without its end."""
    return not text.endswith(b"}") and text.isascii() and text.decode().isprintable()


def _last_lines(path: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The last line of each curve ("train", or the split) of a run that is over. RunError for damaged metrics."""
    text = _read(path)
    *lines, rest = text.split(b"\n")
    with _damage(path):
        if summary.get("metrics_sha256", digest := hashlib.sha256(text).hexdigest()) != digest:
            raise ValueError(f"its content does not fit the digest in {path.parent}/summary.json")
        if rest:
            raise ValueError("its last line is cut off")
    last: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(lines, 1):
        with _damage(f"{path} line {number}"):
            line = fields.parse(one)
            split = ("split",) if line.get("kind") == "eval" else ()
            fields.check_fields(line, fields.METRIC, ("kind", "step", "loss", "accuracy", *split))
        last[line.get("split", line["kind"])] = line
    return last


def _read(path: Path) -> bytes:
    _is_there(path)
    try:
        return read_bytes(path)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def _damage(place: object) -> AbstractContextManager[None]:
    return fields.naming(f"{place} is damaged: ", RunError)
