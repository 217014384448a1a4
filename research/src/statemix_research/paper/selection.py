"""Honest choices among runs: by validation data, with everything that was tried shown beside what was chosen.

A run is a mapping with its labels ("task", "lr", "seed", …), its "status" and its numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from statemix.analysis.statistics import Spread, spread

Run = Mapping[str, Any]

LEAST = 0.02
"""Two accuracies nearer than this agree, however small the spread of one of them is."""


ACCURACIES = ("accuracy", "mean_accuracy", "validation")
"""Values that a run which diverged has all the same: 0."""


class Candidate(NamedTuple):
    """Runs that differ in the seed alone: the setting that tells them from others, their validation and value."""

    setting: dict[str, Any]
    validation: Spread
    value: Spread
    diverged: int
    runs: list[Run]


class Selection(NamedTuple):
    """The candidate of the best mean on validation data among those with the most runs, and all that were tried, in the
    order of their settings."""

    chosen: Candidate
    tried: list[Candidate]


def matching(runs: Iterable[Run], where: Mapping[str, Any]) -> list[Run]:
    """The runs whose labels have the given values; a list or tuple of values admits each of them."""
    found = list(runs)
    for key, want in where.items():
        wanted = want if isinstance(want, (list, tuple)) else (want,)
        found = [run for run in found if run.get(key) in wanted]
    return found


def grouped(runs: Iterable[Run], by: Sequence[str]) -> dict[tuple[Any, ...], list[Run]]:
    """Runs by the values of some labels, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.get(key) for key in by), []).append(run)
    return groups


def numbers(runs: Iterable[Run], value: str) -> list[float]:
    """The values of runs that have one; an accuracy of a run that diverged is 0."""
    found = []
    for run in runs:
        number = run.get(value)
        if run.get("status") == "diverged" and value in ACCURACIES:
            number = 0.0
        if number is not None and math.isfinite(number):
            found.append(float(number))
    return found


def select(
    runs: Iterable[Run], over: Sequence[str] = ("lr",), value: str = "accuracy", score: str = "validation"
) -> Selection | None:
    """Choose among settings of the labels `over` the one of the best mean `score`; None without any run that ended.

    The test value takes no part in the choice. A setting with fewer runs than another is shown and not chosen: of an
    unfinished sweep those runs end first that stop early, because they succeeded. Of equals the first is taken.
    """
    tried = []
    for setting, members in grouped(runs, over).items():
        ended = [run for run in members if numbers([run], value)]
        if ended:
            diverged = sum(run.get("status") == "diverged" for run in ended)
            names = dict(zip(over, setting, strict=True))
            scores, values = spread(numbers(ended, score)), spread(numbers(ended, value))
            tried.append(Candidate(names, scores, values, diverged, ended))
    if not tried:
        return None
    tried.sort(key=lambda one: [_ordered(part) for part in one.setting.values()])
    most = max(len(one.runs) for one in tried)
    whole = [one for one in tried if len(one.runs) == most]
    return Selection(
        max(whole, key=lambda one: one.validation.mean if one.validation.n else -math.inf), tried
    )


def _ordered(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, (int, float)) else (1, 0.0, json.dumps(value))


def within(
    runs: Iterable[Run], by: Sequence[str], cost: str, budget: float, same: Mapping[str, Any]
) -> list[Run]:
    """The runs of those groups (by labels) whose mean cost is at most `budget`: that of the runs in which it was
    measured, with the labels `same`. The others of a group cost as much."""
    kept: list[Run] = []
    for members in grouped(runs, by).values():
        costs = spread(numbers(matching(members, same), cost))
        if costs.n and costs.mean <= budget:
            kept += members
    return kept


def averaged(spreads: Sequence[Spread]) -> Spread:
    """The mean of several means, with its deviation if they are independent, and the smallest n."""
    known = [one for one in spreads if one.n]
    if not known:
        return spread([])
    deviation = math.sqrt(math.fsum(one.deviation**2 for one in known)) / len(known)
    return Spread(math.fsum(one.mean for one in known) / len(known), deviation, min(one.n for one in known))


def verdict(ours: Spread, theirs: float) -> str:
    """ "agrees" when a published number lies within two deviations (at least `LEAST`) of our mean, else "differs"
    with our mean less theirs; a dash without runs."""
    if not ours.n:
        return "–"
    if abs(ours.mean - theirs) <= max(2 * ours.deviation, LEAST):
        return "agrees"
    return f"differs ({ours.mean - theirs:+.3f})"
