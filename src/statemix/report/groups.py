"""Runs that differ in nothing but their seed, with a label and a colour that stay the same on a whole page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statemix.report.records import Record, find_runs, read_record
from statemix.training.config import flatten

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#44AA99", "#999933")
"""Distinguishable by colour-blind readers (Okabe and Ito, then Tol)."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Fewer than the colours, so that beyond nine configurations the pairs still differ."""

SIZES = {"bdlru": ("block_size", "num_blocks"), "hlru": ("order", "num_channels")}
"""Which arguments of a mixer are m and N."""

TITLES = {"bdlru": "BD-LRU", "hlru": "H-LRU"}

IGNORED = ("name", "version", "training.seed", "training.device")
"""What does not make two configurations different."""


@dataclass(frozen=True)
class Group:
    """Seeds of one configuration."""

    label: str
    color: str
    marker: str
    runs: list[Record]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, of the first seed."""
        return self.runs[0].config

    @property
    def m(self) -> int | None:
        """Block size or order, when the mixer has one."""
        size = SIZES.get(self.config["mixer"]["name"])
        return self.config["mixer"].get(size[0]) if size else None


def read_groups(folders: Iterable[str | Path]) -> list[Group]:
    """Read every run and put those together that differ in the seed alone, in order of appearance."""
    together: dict[str, list[Record]] = {}
    for record in map(read_record, find_runs(folders)):
        flat = {key: value for key, value in flatten(record.config).items() if key not in IGNORED}
        together.setdefault(json.dumps(flat, sort_keys=True), []).append(record)
    groups = [sorted(runs, key=lambda run: run.seed) for runs in together.values()]
    return [
        Group(label, COLORS[k % len(COLORS)], MARKERS[k % len(MARKERS)], runs)
        for k, (label, runs) in enumerate(
            zip(_labels([runs[0].config for runs in groups]), groups, strict=True)
        )
    ]


def mixer_label(mixer: dict[str, Any]) -> str:
    """ "BD-LRU m = 3", "H-LRU m = 4", "diagonal (m = 1)", or the mixer's own name."""
    name = mixer["name"]
    if name not in SIZES:
        return str(name)
    m = mixer.get(SIZES[name][0])
    if m == 1:
        return "diagonal (m = 1)"
    return f"{TITLES[name]} m = {m}"


def _labels(configs: list[dict[str, Any]]) -> list[str]:
    """The mixer's label; with the task's settings where tasks differ, and where a label is taken twice with the
    settings that tell its configurations apart."""
    plain = [mixer_label(config["mixer"]) for config in configs]
    flat = [flatten(config) for config in configs]
    tasks = [{key: value for key, value in one.items() if key.startswith("task.")} for one in flat]
    labels = []
    for mine, label in zip(flat, plain, strict=True):
        same = [other for other, theirs in zip(flat, plain, strict=True) if theirs == label]
        differing = [
            key for key in mine
            if key not in IGNORED and (
                any(other.get(key) != mine[key] for other in same)
                or (key.startswith("task.") and any(other.get(key) != mine[key] for other in tasks))
            )
        ]  # fmt: skip
        details = ", ".join(
            str(mine[key]) if key == "task.name" else f"{key.rpartition('.')[2]} {mine[key]}"
            for key in differing
        )
        labels.append(f"{label} ({details})" if details else label)
    return labels
