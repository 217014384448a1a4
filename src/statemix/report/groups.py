"""Runs that differ in nothing but their seed, with a label and a colour that stay the same on a whole page."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statemix.analysis.statistics import spread
from statemix.report.labels import IGNORED, SIZES, model_labels, run_labels
from statemix.report.records import Record, find_runs, read_record
from statemix.training import flatten

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#999933")
"""Distinguishable by colour-blind readers (Okabe and Ito, then Tol)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Fewer than the colours, so that beyond nine configurations the pairs still differ."""

GREY = "#777777"
"""Of what is drawn together because there are more kinds of it than colours."""


@dataclass(frozen=True)
class Group:
    """Seeds of one configuration; or, in a figure, runs of several configurations of one model."""

    label: str
    color: str
    marker: str
    runs: list[Record]
    configurations: int = 1

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, of the first seed."""
        return self.runs[0].config

    @property
    def m(self) -> int | None:
        """Block size or order, when the mixer has one."""
        size = SIZES.get(self.config["mixer"]["name"])
        return self.config["mixer"].get(size[0]) if size else None

    def best_validation(self) -> float:
        """The mean of the seeds' best validation accuracies; a run without one counts 0, as one that diverged."""
        best = (run.best_validation() if run.status != "diverged" else 0.0 for run in self.runs)
        return spread(value or 0.0 for value in best).mean


def read_groups(folders: Iterable[str | Path]) -> list[Group]:
    """Read every run and put those together that differ in the seed alone, in order of appearance.

    Configurations that a figure draws together (`merge_groups`) have one colour.
    """
    together: dict[str, list[Record]] = {}
    for record in map(read_record, find_runs(folders)):
        flat = {key: value for key, value in flatten(record.config).items() if key not in IGNORED}
        together.setdefault(json.dumps(flat, sort_keys=True), []).append(record)
    groups = [sorted(runs, key=lambda run: run.seed) for runs in together.values()]
    labels = run_labels([runs[0].config for runs in groups])
    styled = _styled([Group(label, "", "", runs) for label, runs in zip(labels, groups, strict=True)])
    shared = {run.folder: merged for merged in merge_groups(styled) for run in merged.runs}
    return [
        dataclasses.replace(group, color=merged.color, marker=merged.marker)
        for group, merged in ((group, shared[group.runs[0].folder]) for group in styled)
    ]


def _styled(groups: Sequence[Group]) -> list[Group]:
    return [
        dataclasses.replace(group, color=COLORS[k % len(COLORS)], marker=MARKERS[k % len(MARKERS)])
        for k, group in enumerate(groups)
    ]


def merge_groups(groups: list[Group]) -> list[Group]:
    """At most as many groups as there are colours, for a figure: the same groups, or one for each model.

    A merged group has the runs of all its configurations. Models beyond the number of colours are put together too.
    """
    if len(groups) <= len(COLORS):
        return groups
    together: dict[str, list[Group]] = {}
    for group, label in zip(groups, model_labels([group.config for group in groups]), strict=True):
        together.setdefault(label, []).append(group)
    merged = [_merged(label, members) for label, members in together.items()]
    if len(merged) <= len(COLORS):
        return _styled(merged)
    merged.sort(key=Group.best_validation, reverse=True)
    alone, rest = merged[: len(COLORS) - 1], merged[len(COLORS) - 1 :]
    others = dataclasses.replace(_merged(f"{len(rest)} others", rest), color=GREY, marker=".")
    return [*_styled(alone), others]


def _merged(label: str, members: list[Group]) -> Group:
    runs = [run for group in members for run in group.runs]
    return Group(label, "", "", runs, sum(group.configurations for group in members))
