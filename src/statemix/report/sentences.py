"""Two sentences on a page of runs: what the task is and what was compared, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from statemix.analysis import Spread
from statemix.report.runs import Group, trained_lengths, varied
from statemix.report.tables import score, statuses
from statemix.text import visible

NAMED = 4
"""Things that a sentence names one by one; of more it says how many."""

NOTHING: tuple[Any, ...] = ("", {}, [], ())
"""Options that say nothing."""


def sentences(groups: list[Group]) -> tuple[str, str]:
    """(What the task is and what was compared, what came out)."""
    return _question(groups), _answer(groups)


def _question(groups: list[Group]) -> str:
    tasks, task, runs = _by_task(groups), groups[0].runs[0].task, [len(group.runs) for group in groups]
    what = f"There are {len(tasks)} tasks ({listed(tasks)})"
    if len(tasks) == 1:
        said = {key: value for key, value in task.options.items() if key != "length" and value not in NOTHING}
        options = [f", {key} = {visible(value)}" for key, value in said.items()]
        what = f"The task is to {task.summary[0].lower()}{task.summary[1:]}{''.join(options[:NAMED])}"
    seeds = "one seed" if max(runs) == 1 else f"{max(runs)} seeds"
    each = f"{seeds} each" if len(set(runs)) == 1 else f"{sum(runs)} runs in all"
    compared = f"{_several(group.label for group in groups)} are compared, {each}"
    if len(groups) == 1:
        compared = f"one configuration, {groups[0].label}, was trained with {seeds}, so nothing is compared"
    return f"{what}, trained at length {listed(trained_lengths(groups))}; {compared}."


def _by_task(groups: list[Group]) -> dict[str, list[Group]]:
    """The groups by task: its name, and the options, less the length, in which tasks of that name differ."""
    together: dict[str, list[Group]] = {}
    for group in groups:
        task = group.runs[0].task
        alike = [run for other in groups for run in other.runs if run.task.name == task.name]
        told = [key.removeprefix("task.") for key in varied(alike) if key.startswith("task.")]
        options = [f"{key} = {visible(task.options[key])}" for key in told if key != "length"]
        together.setdefault(", ".join([task.name.replace("_", " "), *options]), []).append(group)
    return together


def _several(labels: Iterable[str]) -> str:
    names = list(labels)
    return listed(names) if len(names) <= NAMED else f"{len(names)} configurations"


def listed(words: Iterable[object]) -> str:
    """ "a, b and c"; of more than `NAMED` + 1 the first ones and how many more."""
    names = list(map(str, words))
    if len(names) > NAMED + 1:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _answer(groups: list[Group]) -> str:
    untested = statuses(run for group in groups for run in group.runs if not run.accuracy)
    tested = [group for group in groups if any(run.accuracy for run in group.runs)]
    if not tested:
        return f"There is no test accuracy yet: {untested}."
    tasks = _by_task(tested)
    several = len(_by_task(groups)) > 1
    parts = [_outcome(members, f"on {name} " if several else "") for name, members in tasks.items()]
    text = "; ".join(parts) if len(parts) <= NAMED else "The table gives the accuracies task by task"
    left_out = f" (without a test accuracy: {untested})" if untested else ""
    return f"{text[0].upper()}{text[1:]}{left_out}."


def _outcome(groups: list[Group], prefix: str) -> str:
    """The highest and the lowest accuracy on one task, at the longest of the lengths that most were tested at."""
    counts = Counter(length for group in groups for length in {k for run in group.runs for k in run.accuracy})
    length = max(counts, key=lambda one: (counts[one], one))
    scores = {group.label: group.accuracy_at(length) for group in groups}
    scores = {label: one for label, one in scores.items() if one.n}
    low, high = (end(one.mean for one in scores.values()) for end in (min, max))
    place = f"{prefix}at length {length}{_relative(length, groups)}"
    worst, best = ([label for label, one in scores.items() if one.mean == end] for end in (low, high))
    top, bottom = score(scores[best[0]], 1), score(scores[worst[0]], 1)
    if low == high:
        who = best[0] if len(best) == 1 else f"each of {len(best)} configurations"
        return f"{place} the test accuracy of {who} is {top}{_caution([scores[best[0]]])}"
    return (
        f"{place} {_several(best)} {'have' if len(best) > 1 else 'has'} the highest test accuracy, {top}, and "
        f"{_several(worst)} the lowest, {bottom}{_caution([scores[name] for name in (*best, *worst)])}"
    )


def _caution(ends: list[Spread]) -> str:
    """How far a difference between these can be trusted."""
    if any(one.n == 1 for one in ends):
        return "; a single seed shows no spread"
    overlap = len(ends) > 1 and ends[0].low <= ends[-1].high
    return "; their ranges over seeds overlap: not separable" if overlap else ""


def _relative(length: int, groups: list[Group]) -> str:
    """ " (16 times the training length)"; nothing where the groups differ in it."""
    trained = trained_lengths(groups)
    ratio = length / trained[0]
    times = f"{ratio:,.0f} times " if ratio >= 1000 else f"{ratio:.3g} times "
    return f" ({'' if length == trained[0] else times}the training length)" if len(trained) == 1 else ""
