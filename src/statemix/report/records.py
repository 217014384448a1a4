"""Run folders, read for a report: any run, at any stage, and a clear error for a folder that is none."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemix.tasks import Task, get_task
from statemix.training import Config, check_metrics
from statemix.training.files import RunError, read_json

if TYPE_CHECKING:
    import pandas

POINTS = 1000
"""A curve is thinned to at most twice as many points: more than a figure can show."""

CURVES = {"train": "loss", "eval": "accuracy"}
"""The value that is drawn of each kind of line in metrics.jsonl; of evaluations, those on the validation split."""


@dataclass(frozen=True)
class Record:
    """One run as read from its folder; `summary` is empty until the run ends."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    task: Task
    seed: int
    status: str
    step: int
    accuracy: dict[int, float]
    best_validation: float | None
    seconds: float | None
    curves: dict[str, pandas.Series]
    """Training loss and validation accuracy by step."""

    @property
    def has_weights(self) -> bool:
        """Whether a trained model can be loaded from the folder."""
        return (self.folder / "model.safetensors").exists()


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """The run folders among `folders` and, where one is none itself, among its descendants. ValueError for neither."""
    found: dict[Path, Path] = {}  # by its resolved path: a run that is named twice counts once
    for folder in map(Path, folders):
        is_run = (folder / "config.json").is_file()
        runs = [folder] if is_run else sorted(path.parent for path in folder.rglob("config.json"))
        if not runs:
            absent = "is not a folder" if folder.exists() else "does not exist"
            what = "has no run in it" if folder.is_dir() else absent
            expected = "expected a run folder (with config.json) or one that holds some"
            raise ValueError(f"folders: {folder} {what}, {expected}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    if not found:
        raise ValueError("folders: got none, expected at least one run folder")
    return list(found.values())


def read_record(folder: Path) -> Record:
    """One run. ValueError naming the file that is missing, unreadable or not what it should be."""
    with _blaming(f"{folder} is not a run"):
        config = read_json(folder / "config.json")
        summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
        last_step, curves = read_metrics(folder / "metrics.jsonl")
        check_metrics(folder / "metrics.jsonl", summary)
    with _blaming(f"{folder}/config.json is not a configuration of a run"):
        Config.from_dict(config)
        task, seed = _task(json.dumps(config["task"], sort_keys=True)), int(config["training"]["seed"])
    with _blaming(f"{folder}/summary.json is not the summary of a run"):
        accuracy = {int(k): _number("accuracy", one, 1) for k, one in summary.get("accuracy", {}).items()}
        best, seconds = summary.get("best_accuracy"), summary.get("seconds")
        return Record(
            folder, config, summary, task, seed, str(summary.get("status", "running")),
            int(summary.get("step", last_step)), dict(sorted(accuracy.items())),
            None if best is None else _number("best_accuracy", best, 1),
            None if seconds is None else _number("seconds", seconds, math.inf), curves,
        )  # fmt: skip


@contextlib.contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Errors within as a ValueError that says what is wrong with which folder or file."""
    try:
        yield
    except (OSError, RunError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"cannot read metrics.jsonl ({error.strerror})" if isinstance(error, OSError) else error
        raise ValueError(f"folders: {what}: {reason}") from None


@functools.lru_cache(maxsize=64)
def _task(options: str) -> Task:
    """One task for all runs that have it; options: its JSON."""
    return get_task(**json.loads(options))


def _number(name: str, value: Any, most: float) -> float:
    if not (isinstance(value, (int, float)) and 0 <= value <= most and math.isfinite(value)):
        raise ValueError(f"{name}: got {value!r}, expected a number from 0 to {most}")
    return float(value)


def read_metrics(path: Path) -> tuple[int, dict[str, pandas.Series]]:
    """The last step and the curves of metrics.jsonl, less a last line that is still being written.

    OSError for a file that cannot be read, ValueError naming the file, the line and what is wrong with it.
    """
    import pandas

    points = {value: (array("q"), array("d")) for value in CURVES.values()}
    last_step, damaged, decode = 0, "", json.JSONDecoder().decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if damaged:
                raise ValueError(damaged)
            try:
                entry = decode(line.decode())  # `json.loads` of bytes takes twice as long
            except (ValueError, RecursionError):
                damaged = f"{path} line {number} is not JSON"  # the last may be being written
                continue
            try:
                last_step = max(last_step, _add(points, entry))
            except (TypeError, KeyError, OverflowError) as error:
                raise ValueError(f"{path} line {number} is not a line of metrics: {error}") from None
    return last_step, {
        name: pandas.Series(thinned(values), thinned(steps), float).groupby(level=0).last()
        for name, (steps, values) in points.items()
    }


def _add(points: dict[str, tuple[array[int], array[float]]], entry: Any) -> int:
    """Put a line into the curve that it belongs to, if there is one; its step."""
    kind, step = entry["kind"], operator.index(entry["step"])
    value = entry.get(CURVES.get(kind))
    if value is not None and entry.get("split", "validation") == "validation":
        steps, values = points[CURVES[kind]]
        values.append(value)
        steps.append(step)
    return step


def thinned(points: array[Any]) -> array[Any]:
    """Every 2^k-th point, with k as small as `POINTS` allows, and the last one: runs of other lengths share steps."""
    stride = 1
    while len(points) > 2 * POINTS * stride:
        stride *= 2
    return points[:-1:stride] + points[-1:]
