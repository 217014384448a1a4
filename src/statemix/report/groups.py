"""Runs that differ in nothing but their seed, with a label and a look that stay the same on a whole page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statemix.analysis import Spread, spread
from statemix.report.palette import MAX_SERIES, OTHERS, Look, look_of
from statemix.report.records import Record, find_runs, read_record
from statemix.tasks import Task
from statemix.text import visible
from statemix.training import flatten

SIZES = {"bdlru": ("BD-LRU", "block_size"), "hlru": ("H-LRU", "order")}
"""The title of a mixer that has an m, and which of its arguments m is."""

IGNORED = ("name", "version", "training.seed", "training.device")
"""What does not make two configurations different."""

LINES = ("-", "--", ":", "-.")
"""Of configurations of one model, which share its colour."""


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
        together.setdefault(json.dumps(_flat(record.config), sort_keys=True), []).append(record)
    models: list[str] = []
    result = []
    for runs, label in zip(
        together.values(), _labels([a.config for a, *_ in together.values()]), strict=True
    ):
        model = mixer_label(runs[0].config["mixer"])
        line = LINES[models.count(model) % len(LINES)]
        models.append(model)
        result.append(Group(label, look_of(model), line, sorted(runs, key=lambda run: run.seed)))
    return result


def tasks_of(groups: Iterable[Group]) -> list[Task]:
    """The different tasks of some groups."""
    return list({id(run.task): run.task for group in groups for run in group.runs}.values())


def merge_groups(groups: list[Group]) -> list[Group]:
    """At most `MAX_SERIES` groups for a figure: the same groups, or one for each model; the last for all the others.

    A merged group has the runs of all its configurations. The best models on the validation split stand alone.
    """
    if len(groups) <= MAX_SERIES:
        return groups
    several = len({group.config["task"]["name"] for group in groups}) > 1
    together: dict[str, list[Group]] = {}
    for group in groups:
        model = mixer_label(group.config["mixer"])
        task = visible(group.config["task"]["name"]).replace("_", " ")
        together.setdefault(f"{model}, {task}" if several else model, []).append(group)
    merged = [_merged(label, members[0].look, members) for label, members in together.items()]
    if len(merged) <= MAX_SERIES:
        return merged
    merged.sort(key=Group.best_validation, reverse=True)
    alone, rest = merged[: MAX_SERIES - 1], merged[MAX_SERIES - 1 :]
    return [*alone, _merged(f"{len(rest)} others", OTHERS, rest)]


def _merged(label: str, look: Look, members: Sequence[Group]) -> Group:
    runs = [run for group in members for run in group.runs]
    return Group(label, look, "-", runs, sum(group.configurations for group in members))


def mixer_label(mixer: dict[str, Any]) -> str:
    """ "BD-LRU m = 3", "H-LRU m = 4", "diagonal (m = 1)", or the mixer's own name."""
    if mixer["name"] not in SIZES:
        return visible(mixer["name"])
    title, argument = SIZES[mixer["name"]]
    m = mixer.get(argument)
    return "diagonal (m = 1)" if m == 1 else f"{title} m = {visible(m)}"


def _labels(configs: list[dict[str, Any]]) -> list[str]:
    """The mixers' labels, with the task's settings where they differ, and with whatever tells equal labels apart."""
    plain, flat = [mixer_label(config["mixer"]) for config in configs], list(map(_flat, configs))
    tasks = {key: values for key, values in varied(flat).items() if key.startswith("task.")}
    together = {
        label: [one for one, name in zip(flat, plain, strict=True) if name == label] for label in set(plain)
    }
    told = {label: varied(members) | tasks for label, members in together.items()}
    labels = []
    for config, label in zip(flat, plain, strict=True):
        details = ", ".join(
            _detail(key, config[key], told[label][key]) for key in config if key in told[label]
        )
        labels.append(f"{label} ({details})" if details else label)
    return labels


def varied(configs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same, or not there, in all configurations, with their different values."""
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: {json.dumps(config.get(key)): config.get(key) for config in configs} for key in keys}
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


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(config).items() if key not in IGNORED}
