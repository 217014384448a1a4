"""Two sentences on a page of runs: what the task is and what was compared, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from statemix.analysis.statistics import Spread
from statemix.report.groups import Group, mixer_label
from statemix.report.records import Record
from statemix.report.tables import score
from statemix.text import visible

NAMED = 4
"""Things that a sentence names one by one; of more it says how many."""


def sentences(groups: list[Group]) -> tuple[str, str]:
    """(What the task is and what was compared, what came out)."""
    return _question(groups), _answer(groups)


def _question(groups: list[Group]) -> str:
    tasks = _by_task(groups)
    trained = f"trained at length {_list(map(str, sorted({group.runs[0].task.length for group in groups})))}"
    if len(tasks) > 1:
        return f"There are {len(tasks)} tasks ({_list(tasks)}), {trained}; {_compared(groups)}."
    task = groups[0].runs[0].task
    options = [f", {key} = {visible(value)}" for key, value in task.options.items() if key != "length"]
    summary = task.summary[0].lower() + task.summary[1:]
    return f"The task is to {summary}{''.join(options[:NAMED])}, {trained}; {_compared(groups)}."


def _by_task(groups: list[Group]) -> dict[str, list[Group]]:
    """The groups by task: its name, and the options, less the length, in which tasks of that name differ."""
    tasks = [group.runs[0].task for group in groups]
    together: dict[str, list[Group]] = {}
    for group, task in zip(groups, tasks, strict=True):
        alike = [other for other in tasks if other.name == task.name]
        options = [
            f"{key} = {visible(value)}"
            for key, value in task.options.items()
            if key != "length" and any(other.options.get(key) != value for other in alike)
        ]
        together.setdefault(", ".join([task.name.replace("_", " "), *options]), []).append(group)
    return together


def _compared(groups: list[Group]) -> str:
    counts = {len(group.runs) for group in groups}
    seeds = "one seed" if counts == {1} else f"{max(counts)} seeds"
    if len(groups) == 1:
        return f"one configuration, {groups[0].label}, was trained with {seeds}, so nothing is compared"
    each = f"{seeds} each" if len(counts) == 1 else f"{sum(len(group.runs) for group in groups)} runs in all"
    if len(groups) <= NAMED:
        return f"{_list(group.label for group in groups)} are compared, {each}"
    models = list(dict.fromkeys(mixer_label(group.config["mixer"]) for group in groups))
    what = models[0] if len(models) == 1 else f"{len(models)} models ({_list(models)})"
    return f"{len(groups)} configurations of {what} are compared, {each}"


def _list(words: Iterable[str]) -> str:
    """ "a, b and c"; of more than `NAMED` + 1 the first ones and how many more."""
    names = list(words)
    if len(names) > NAMED + 1:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _answer(groups: list[Group]) -> str:
    untested = [run for group in groups for run in group.runs if not run.accuracy]
    tested = [group for group in groups if any(run.accuracy for run in group.runs)]
    if not tested:
        return f"There is no test accuracy yet: {_untested(untested)}."
    several, tasks = len(_by_task(groups)) > 1, _by_task(groups)
    parts = [
        _outcome(members, f"on {name} " if several else "")
        for name, every in tasks.items()
        if (members := [group for group in every if group in tested])
    ]
    text = "; ".join(parts) if len(parts) <= NAMED else "The table gives the accuracies task by task"
    left_out = f" ({_untested(untested)}: left out)" if untested else ""
    return f"{text[0].upper()}{text[1:]}{left_out}."


def _untested(runs: list[Record]) -> str:
    """ "1 run diverged, 2 runs running"."""
    counts = Counter(run.status.replace("finished", "not tested") for run in runs)
    return ", ".join(
        f"{count} run{'' if count == 1 else 's'} {visible(how)}" for how, count in counts.items()
    )


def _outcome(groups: list[Group], prefix: str) -> str:
    """The highest and the lowest accuracy on one task, at the longest of the lengths that most were tested at."""
    counts = Counter(length for group in groups for length in {k for run in group.runs for k in run.accuracy})
    length = max(counts, key=lambda one: (counts[one], one))
    scores = {group.label: group.accuracy_at(length) for group in groups}
    scores = {label: one for label, one in scores.items() if one.n}
    ranked = sorted(scores.values(), key=lambda one: one.mean)
    low, high = ranked[0], ranked[-1]
    place = f"{prefix}at {_relative(length, groups)}"
    if low.mean == high.mean:
        who = next(iter(scores)) if len(scores) == 1 else f"each of {len(scores)} configurations"
        return f"{place} the test accuracy of {who} is {score(high, 1)}{_caution([high])}"
    best, worst = ([k for k, one in scores.items() if one.mean == end.mean] for end in (high, low))
    holders = [_list(those) if len(those) <= NAMED else f"{len(those)} of {len(scores)} configurations"
               for those in (best, worst)]  # fmt: skip
    text = (
        f"{place} {holders[0]} {'have' if len(best) > 1 else 'has'} the highest test accuracy, {score(high, 1)}, "
        f"and {holders[1]} the lowest, {score(low, 1)}"
    )
    return text + _caution([scores[name] for name in (*best, *worst)])


def _caution(ends: list[Spread]) -> str:
    """How far a difference between these can be trusted."""
    if any(one.n == 1 for one in ends):
        return "; a single seed shows no spread"
    overlap = len(ends) > 1 and ends[0].low <= ends[-1].high
    return "; their ranges over seeds overlap: not separable" if overlap else ""


def _relative(length: int, groups: list[Group]) -> str:
    """ "length 256 (16 times the training length)"."""
    trained = {run.task.length for group in groups for run in group.runs}
    if len(trained) > 1:
        return f"length {length}"
    times = length / trained.pop()
    return f"length {length} ({'the training length' if times == 1 else f'{times:.3g} times the training length'})"
