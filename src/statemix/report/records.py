"""Run folders, read for a report: any run, at any stage, and a clear error for a folder that is none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statemix.tasks import Task, get_task
from statemix.training.config import Config
from statemix.training.files import RunError, read_json
from statemix.training.metrics import check_metrics


@dataclass(frozen=True)
class Record:
    """One run as its folder tells it."""

    folder: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    """Empty while the run goes on."""

    @property
    def status(self) -> str:
        """How it ended, or "running"."""
        return str(self.summary.get("status", "running"))

    @property
    def step(self) -> int:
        """Steps done: as the summary says, or the last that was logged."""
        return int(self.summary.get("step", max((line["step"] for line in self.metrics), default=0)))

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
        return get_task(**self.config["task"])

    def accuracy(self) -> dict[int, float]:
        """Test accuracy by length; empty when the run was not tested."""
        return {int(length): float(value) for length, value in self.summary.get("accuracy", {}).items()}

    def curve(self, kind: str, value: str) -> tuple[list[int], list[float]]:
        """Steps and values of one metric: kind "train", or "eval" for the validation split."""
        lines = [
            line for line in self.metrics
            if line["kind"] == kind and line.get("split", "validation") == "validation" and line.get(value) is not None
        ]  # fmt: skip
        return [line["step"] for line in lines], [line[value] for line in lines]


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
        record.accuracy(), record.step
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"folders: {folder}/summary.json is not the summary of a run: {error}") from None
    try:
        check_metrics(folder / "metrics.jsonl", summary)
    except RunError as error:
        raise ValueError(f"folders: {error}") from None
    return record


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, less a last one that is still being written."""
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"folders: {folder} is not a run: cannot read metrics.jsonl ({reason}), expected the run's metrics"
        ) from None
    metrics = []
    for number, line in enumerate(lines, start=1):
        try:
            metrics.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break  # a run that goes on may be in the middle of its last line
            raise ValueError(f"folders: {path} line {number} is not JSON") from None
        if not isinstance(metrics[-1], dict) or not {"kind", "step"} <= metrics[-1].keys():
            raise ValueError(f'folders: {path} line {number} is not an object with "kind" and "step"')
    return metrics


def _json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RunError as error:
        what = str(error).replace(str(path), path.name)
        raise ValueError(f"folders: {folder} is not a run: {what}") from None
