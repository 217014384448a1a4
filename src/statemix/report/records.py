"""Run folders, read for a report: any run, at any stage, and a clear error for a folder that is none."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statemix.report.curves import Curve, Metrics, read_metrics
from statemix.tasks import Task, get_task
from statemix.training import Config, check_metrics
from statemix.training.files import RunError, read_json


@dataclass(frozen=True)
class Record:
    """One run as its folder tells it."""

    folder: Path
    config: dict[str, Any]
    metrics: Metrics
    summary: dict[str, Any]
    """Empty while the run goes on."""

    @property
    def status(self) -> str:
        """How it ended, or "running"."""
        return str(self.summary.get("status", "running"))

    @property
    def step(self) -> int:
        """Steps done: as the summary says, or the last that was logged."""
        return int(self.summary.get("step", self.metrics.last_step))

    @property
    def seed(self) -> int:
        """The seed of weights and data."""
        return int(self.config["training"]["seed"])

    @property
    def has_weights(self) -> bool:
        """Whether a trained model can be loaded from the folder."""
        return (self.folder / "model.safetensors").exists()

    def task(self) -> Task:
        """The task it was trained on."""
        return _task(json.dumps(self.config["task"], sort_keys=True))

    def accuracy(self) -> dict[int, float]:
        """Test accuracy by length; empty when the run was not tested. ValueError for one outside [0, 1]."""
        told = self.summary.get("accuracy", {}).items()
        return {_length(length): _fraction(f"accuracy at {length}", value) for length, value in told}

    def best_validation(self) -> float | None:
        """The highest validation accuracy, or None when there was no evaluation. ValueError as `accuracy`."""
        best = self.summary.get("best_accuracy")
        return None if best is None else _fraction("best_accuracy", best)

    def seconds(self) -> float | None:
        """How long it trained, or None while it goes on. ValueError for what is no time."""
        told = self.summary.get("seconds")
        if told is not None and not (isinstance(told, (int, float)) and 0 <= told < math.inf):
            raise ValueError(f"seconds: got {told!r}, expected a number of at least 0")
        return told

    def curve(self, kind: str, value: str) -> Curve:
        """Training loss ("train", "loss") or validation accuracy ("eval", "accuracy") by step."""
        return self.metrics.curves[kind, value]


@functools.lru_cache(maxsize=64)
def _task(options: str) -> Task:
    """One task for all runs that have it; options: its JSON."""
    return get_task(**json.loads(options))


def _length(text: str) -> int:
    length = int(text)
    if length < 1:
        raise ValueError(f"accuracy: got the length {length}, expected at least 1")
    return length


def _fraction(name: str, value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1):
        raise ValueError(f"{name}: got {value!r}, expected a number from 0 to 1")
    return number


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """The run folders among `folders` and, where one is none itself, among its descendants. ValueError for neither."""
    found: dict[Path, Path] = {}  # by its resolved path: a run that is named twice counts once
    given = [Path(folder) for folder in folders]
    if not given:
        raise ValueError("folders: got none, expected at least one run folder")
    for folder in given:
        if (folder / "config.json").is_file():
            found.setdefault(folder.resolve(), folder)
            continue
        below = sorted(path.parent for path in folder.rglob("config.json")) if folder.is_dir() else []
        if not below:
            what = (
                "has no run in it"
                if folder.is_dir()
                else "is not a folder"
                if folder.exists()
                else "does not exist"
            )
            raise ValueError(
                f"folders: {folder} {what}, expected a run folder (with config.json) or one that holds some"
            )
        for run in below:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_record(folder: Path) -> Record:
    """One run. ValueError naming the file that is missing, unreadable or not what it should be."""
    config = _json(folder / "config.json", folder)
    summary = _json(folder / "summary.json", folder) if (folder / "summary.json").exists() else {}
    record = Record(folder, config, _metrics(folder), summary)
    try:
        record.task(), record.seed, config["mixer"]["name"], config["model"]["dim"]
        Config.from_dict(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"folders: {folder}/config.json is not a configuration of a run: {error}") from None
    try:
        record.accuracy(), record.best_validation(), record.seconds(), record.step
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"folders: {folder}/summary.json is not the summary of a run: {error}") from None
    try:
        check_metrics(folder / "metrics.jsonl", summary)
    except RunError as error:
        raise ValueError(f"folders: {error}") from None
    return record


def _metrics(folder: Path) -> Metrics:
    """The metrics of a run. ValueError naming the file."""
    try:
        return read_metrics(folder / "metrics.jsonl")
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"folders: {folder} is not a run: cannot read metrics.jsonl ({reason}), expected the run's metrics"
        ) from None
    except ValueError as error:
        raise ValueError(f"folders: {error}") from None


def _json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RunError as error:
        what = str(error).replace(str(path), path.name)
        raise ValueError(f"folders: {folder} is not a run: {what}") from None
