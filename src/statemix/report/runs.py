"""Run folders, read for a report and put together by configuration: any run at any stage, with labels and looks."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
import textwrap
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statemix.analysis import Spread, spread
from statemix.report.drawing import MAX_SERIES, OTHERS, Look, look_of
from statemix.tasks import Task, get_task
from statemix.text import visible
from statemix.training import Config, check_metrics, flatten
from statemix.training.files import RunError, read_json

if TYPE_CHECKING:
    import pandas

POINTS = 1000
"""A curve is thinned to at most twice as many points: more than a figure can show."""

CURVES = {"train": "loss", "eval": "accuracy"}
"""The value that is drawn of each kind of line in metrics.jsonl; of evaluations, those on the validation split."""

SIZES = {"bdlru": ("BD-LRU", "block_size"), "hlru": ("H-LRU", "order")}
"""The title of a mixer that has an m, and which of its arguments m is."""

IGNORED = ("name", "version", "training.seed", "training.device")
"""What does not make two configurations different."""

LINES = ("-", "--", ":", "-.")
"""Of configurations of one model, which share its colour."""


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

    @property
    def model(self) -> str:
        """The label of the mixer."""
        return mixer_label(self.config["mixer"])

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What tells configurations apart, by dotted name."""
        return {key: value for key, value in flatten(self.config).items() if key not in IGNORED}


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
    stride = 1 << ((len(points) - 1) // (2 * POINTS)).bit_length() if points else 1
    return points[:-1:stride] + points[-1:]


@dataclass(frozen=True)
class Group:
    """Seeds of one configuration; or, in a figure, runs of several configurations of one model."""

    label: str
    look: Look
    line: str
    runs: list[Record]
    configurations: int = 1

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, of the first seed."""
        return self.runs[0].config

    def accuracy_at(self, length: int) -> Spread:
        """The test accuracies of the runs at one length."""
        return spread(run.accuracy[length] for run in self.runs if length in run.accuracy)

    def best_validation(self) -> float:
        """The mean of the seeds' best validation accuracies; 0 for a run that has none or diverged."""
        return spread((run.status != "diverged" and run.best_validation) or 0.0 for run in self.runs).mean


def read_groups(folders: Iterable[str | Path]) -> list[Group]:
    """Read every run and put those together that differ in the seed alone, in order of appearance."""
    together: dict[str, list[Record]] = {}
    for record in map(read_record, find_runs(folders)):
        together.setdefault(json.dumps(record.settings, sort_keys=True), []).append(record)
    labels = _labels([runs[0] for runs in together.values()])
    seen, groups = Counter[str](), list[Group]()
    for runs, label in zip(together.values(), labels, strict=True):
        model = runs[0].model
        line = LINES[seen[model] % len(LINES)]
        groups.append(Group(label, look_of(model), line, sorted(runs, key=lambda run: run.seed)))
        seen[model] += 1
    return groups


def tasks_of(groups: Iterable[Group]) -> list[Task]:
    """The different tasks of some groups."""
    return list({id(run.task): run.task for group in groups for run in group.runs}.values())


def trained_lengths(groups: Iterable[Group]) -> list[int]:
    """The lengths that they were trained at."""
    return sorted({task.length for task in tasks_of(groups)})


def merge_groups(groups: list[Group]) -> list[Group]:
    """At most `MAX_SERIES` groups for a figure: the same groups, or one for each model; the last for all the others.

    A merged group has the runs of all its configurations. The best models on the validation split stand alone.
    """
    if len(groups) <= MAX_SERIES:
        return groups
    several = len({group.config["task"]["name"] for group in groups}) > 1
    together: dict[str, list[Group]] = {}
    for group in groups:
        task = f", {visible(group.config['task']['name'])}".replace("_", " ") if several else ""
        together.setdefault(group.runs[0].model + task, []).append(group)
    merged = [_merged(label, members[0].look, members) for label, members in together.items()]
    if len(merged) <= MAX_SERIES:
        return merged
    merged.sort(key=Group.best_validation, reverse=True)
    alone, rest = merged[: MAX_SERIES - 1], merged[MAX_SERIES - 1 :]
    return [*alone, _merged(f"{len(rest)} others", OTHERS, rest)]


def _merged(label: str, look: Look, members: list[Group]) -> Group:
    runs = [run for group in members for run in group.runs]
    return Group(label, look, "-", runs, sum(group.configurations for group in members))


def mixer_label(mixer: dict[str, Any]) -> str:
    """ "BD-LRU m = 3", "hard BD-LRU m = 3", "H-LRU m = 4", "diagonal (m = 1)", or the mixer's own name.

    "half-hard" stands for layers of which some are hard."""
    if mixer["name"] not in SIZES:
        return visible(mixer["name"])
    title, argument = SIZES[mixer["name"]]
    m = mixer.get(argument)
    rows = mixer.get("hard")
    kinds = set(rows) if isinstance(rows, list) else {bool(rows)}
    hard = "half-hard " if len(kinds) > 1 else "hard " if True in kinds else ""
    return hard + ("diagonal (m = 1)" if m == 1 else f"{title} m = {visible(m)}")


def _labels(runs: list[Record]) -> list[str]:
    """The mixers' labels, with the task's settings where they differ, and with whatever tells equal labels apart."""
    tasks = {key: values for key, values in varied(runs).items() if key.startswith("task.")}
    models = {run.model for run in runs}
    told = {model: varied([run for run in runs if run.model == model]) | tasks for model in models}
    labels = []
    for run in runs:
        among = told[run.model]
        details = [_detail(key, value, among[key]) for key, value in run.settings.items() if key in among]
        labels.append(f"{run.model} ({', '.join(details)})" if details else run.model)
    return labels


def varied(runs: list[Record]) -> dict[str, list[Any]]:
    """The settings that are not the same, or not there, in all runs, with their different values."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: {json.dumps(run.settings.get(key)): run.settings.get(key) for run in runs} for key in keys}
    return {key: list(found.values()) for key, found in values.items() if len(found) > 1}


def _detail(key: str, value: Any, among: list[Any]) -> str:
    """ "lr 0.001": three digits of a number where they tell it from the others; the task's name stands alone."""
    if isinstance(value, float):
        short = [f"{other:.3g}" for other in among if isinstance(other, float)]
        value = f"{value:.3g}" if short.count(f"{value:.3g}") == 1 else repr(value)
    return visible(value) if key == "task.name" else f"{key.rpartition('.')[2]} {visible(value)}"


def shorten(label: str, width: int) -> str:
    """A label as at most three lines of `width` characters for a figure."""
    return "\n".join(textwrap.wrap(label, width, max_lines=3, placeholder=" …")) or label[:width]
