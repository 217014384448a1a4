"""The folder of a run: what lies where, who may use it, and what is wrong with a stranger's."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from statemix.training.checkpoint import run_of
from statemix.training.config import MANNER, Config, flatten
from statemix.training.digest import digest_of
from statemix.training.files import (
    TEMPORARY,
    BusyError,
    RunError,
    abandoned,
    is_temporary,
    open_own,
    read_bytes,
    read_json,
    write_json,
    writing,
)
from statemix.training.guard import holds

FINAL = ("finished", "stopped_early", "diverged")
"""The statuses of a run that has nothing left to do."""

STATUSES = (*FINAL, "interrupted")

UNNAMED = ("name", "version", "training.device", *MANNER)
"""Settings that do not make the files of another run."""


def run_id(content: Mapping[str, Any]) -> str:
    """What a run's files carry to tell whose they are: the digest of its configuration, less what is `UNNAMED`."""
    return digest_of({key: value for key, value in flatten(content).items() if key not in UNNAMED})


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
        self.events = self.path / "tensorboard"
        self.lock = self.path / "lock"

    def prepare(self, config: Config, resume: bool) -> None:
        """Make the folder, or check that it is this run's. RunError otherwise."""
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, expected a folder for the run")
        if self.path.is_symlink() and not self.path.exists():
            raise RunError(f"{self.path} is a symbolic link to nothing, expected a folder for the run")
        self._check_kinds()
        if self.config.exists():
            if not resume:
                raise RunError(f"{self.path} already holds a run, and resume is off: choose another folder")
            self._compare(config)
        elif self.path.is_dir() and not self._may_begin(config, resume):
            raise RunError(
                f"{self.path} is not empty and not a run folder (no config.json): choose another, or put the file back"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise RunError(f"cannot write into {self.path}: permission denied")

    def _check_kinds(self) -> None:
        """Everything that a run writes is its own: RunError for a link, a folder for a file, a file for a folder."""
        folders = (self.checkpoint.parent, self.events)
        for path in sorted({*self._own(), self.config, self.lock}):  # a folder before what lies in it
            kind = "folder" if path in folders else "file"
            if path.is_symlink():
                raise RunError(
                    f"{path} is a symbolic link, expected a {kind} of the run's own: remove the link or choose another "
                    "folder for the run"
                )
            if path.exists() and not (path.is_dir() if kind == "folder" else path.is_file()):
                raise RunError(f"{path} is not a {kind}, expected a {kind} of the run's own")

    def _may_begin(self, config: Config, resume: bool) -> bool:
        """Whether a folder without a configuration is free, or holds this run, which lost it."""
        saved = self.checkpoint.parent
        inside = [*self.path.iterdir(), *(saved.iterdir() if saved.exists() else ())]
        there = {child for child in inside if not is_temporary(child)} - {self.lock}
        if not there:
            return True
        if not resume or there - self._own():
            return False
        told = [run_of(self.checkpoint)] if self.checkpoint.exists() else []
        told += [read_json(self.summary).get("run")] if self.summary.exists() else []
        if told:
            return set(told) == {run_id(config.to_dict())}
        # it ended before the first checkpoint; a lock tells that the metrics are a run's
        started = {self.metrics} if self.lock.exists() and _first_is_ours(self.metrics) else set[Path]()
        return there <= {saved, self.events} | started

    def _own(self) -> set[Path]:
        """All that a run leaves in its folder, beside its configuration and lock."""
        files = {self.metrics, self.summary, self.weights, self.failure, self.checkpoint}
        return {*files, self.checkpoint.parent, self.events}

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
            raise RunError(
                f"{self.path} holds another run: {listed}{self._how_to_go_further(different, wanted)}"
            )

    def _how_to_go_further(self, different: list[str], wanted: Mapping[str, Any]) -> str:
        """What to do about a run that is to have another number of steps (a preset's warm-up may follow them)."""
        if "training.steps" not in different or set(different) - {"training.steps", "training.warmup"}:
            return ""
        steps = wanted["training.steps"]
        place = shlex.quote(str(self.path.with_name(f"{self.path.name}-{steps}")))
        return (
            "; the steps of a run are fixed when it begins: its learning rates follow them, and no optimiser state is "
            f"kept at its end. Train {steps} steps in another folder: the same command with --out {place}"
        )

    def run(self) -> str:
        """What this run's files carry, as `run_id`. RunError for a configuration that cannot be read."""
        return run_id(read_json(self.config))

    def finished(self) -> dict[str, Any] | None:
        """The summary of a run that has nothing left to do, else None. RunError for a damaged or foreign one."""
        summary = self.last_summary()
        if summary is None or summary["status"] not in FINAL:
            return None
        if "run" in summary and self.config.exists() and summary["run"] != self.run():
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
        """Called when the weights and the summary are safe. What else lies there, and is not a run's, stays."""
        saved = self.checkpoint.parent
        with contextlib.suppress(OSError):
            for path in (self.checkpoint, *filter(is_temporary, saved.iterdir())):
                path.unlink(missing_ok=True)
            saved.rmdir()

    def remove_leftovers(self) -> None:
        """Temporary files of a process that was killed while it wrote. Called under the lock."""
        for path in self.path.rglob(TEMPORARY):
            if not path.is_dir() and abandoned(path):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[int | None]:
        """Nobody else trains here meanwhile; gives the lock's descriptor. The lock dies with the process. RunError when
        it is taken."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            yield None
            return
        while True:
            with os.fdopen(open_own(self.lock), "rb") as file:
                with writing(self.lock):
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        raise BusyError(f"{self.path} is being trained by another process") from None
                if holds(file.fileno(), self.lock):  # else it was removed before it was locked
                    yield file.fileno()
                    return


def _first_is_ours(metrics: Path) -> bool:
    """Whether a file of metrics begins with a line of a run, or does not begin."""
    if not metrics.exists():
        return True
    try:
        first = json.loads(read_bytes(metrics).partition(b"\n")[0] or b'{"kind": 0, "step": 0}')
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and {"kind", "step"} <= first.keys()
