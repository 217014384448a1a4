"""Two sentences on a page of runs: what the task is and what was compared, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from statemix.report.groups import Group
from statemix.report.labels import mixer_label
from statemix.report.records import Record
from statemix.report.table import Sample, accuracy_at, fraction
from statemix.tasks import Task
from statemix.text import visible

NAMED = 4
"""Things that a sentence names one by one; of more it says how many."""

UNTESTED = {
    "running": "unfinished",
    "diverged": "diverged",
    "interrupted": "interrupted",
}
"""What is said of runs without a test accuracy, by status."""


def sentences(groups: list[Group]) -> tuple[str, str]:
    """(What the task is and what was compared, what came out)."""
    return _question(groups), _answer(groups)


def _question(groups: list[Group]) -> str:
    tasks = _by_task(groups)
    lengths = sorted({run.task().length for group in groups for run in group.runs})
    trained = f"trained at length {_list(map(str, lengths))}"
    if len(tasks) == 1:
        (members,) = tasks.values()
        told = f"The task is to {_describe(members[0].runs[0].task())}, {trained}"
    else:
        told = f"There are {len(tasks)} tasks ({_list(tasks)}), {trained}"
    return f"{told}; {_compared(groups)}."


def _by_task(groups: list[Group]) -> dict[str, list[Group]]:
    """The groups by what their task is called: its name, and the options in which tasks of that name differ.

    A task is the same at every length.
    """
    tasks = [group.runs[0].task() for group in groups]
    together: dict[str, list[Group]] = {}
    for group, task in zip(groups, tasks, strict=True):
        options = [
            f"{key} = {visible(value)}"
            for key, value in task.options.items()
            if key != "length"
            and any(other.name == task.name and other.options.get(key) != value for other in tasks)
        ]
        together.setdefault(", ".join([task.name.replace("_", " "), *options]), []).append(group)
    return together


def _describe(task: Task) -> str:
    """ "track the product of random permutations of n things (S_n), n = 3"."""
    told = [f"{key} = {visible(value)}" for key, value in task.options.items() if key != "length"]
    options = ", ".join(told[:NAMED])
    summary = task.summary[0].lower() + task.summary[1:]
    return f"{summary}, {options}" if options else summary


def _compared(groups: list[Group]) -> str:
    counts = {len(group.runs) for group in groups}
    runs = sum(len(group.runs) for group in groups)
    if len(groups) == 1:
        return (
            f"one configuration, {groups[0].label}, was trained with {_seeds(runs)}, so nothing is compared"
        )
    models = list(dict.fromkeys(mixer_label(group.config["mixer"]) for group in groups))
    each = f"{_seeds(counts.pop())} each" if len(counts) == 1 else f"{runs} runs in all"
    if len(groups) <= NAMED:
        return f"{_list(group.label for group in groups)} are compared, {each}"
    what = models[0] if len(models) == 1 else f"{len(models)} models ({_list(models)})"
    return f"{len(groups)} configurations of {what} are compared, {each}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _list(words: Iterable[str]) -> str:
    """ "a, b and c"; of more than `NAMED` + 1 the first ones and how many more."""
    names = list(words)
    if len(names) > NAMED + 1:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _answer(groups: list[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    untested = [run for run in runs if not run.accuracy()]
    if len(untested) == len(runs):
        return f"There is no test accuracy yet: {_untested(untested)}."
    together = _by_task(groups)
    tasks = {
        name: members
        for name, members in together.items()
        if any(run.accuracy() for one in members for run in one.runs)
    }
    if len(tasks) > NAMED:
        told = "Accuracies of different tasks are not comparable, so the table gives them task by task"
    else:
        told = "; ".join(
            _outcome(members, f"on {name} " if len(together) > 1 else "") for name, members in tasks.items()
        )
    left_out = f" ({_untested(untested)}: left out)" if untested else ""
    return f"{told[0].upper()}{told[1:]}{left_out}."


def _untested(runs: Sequence[Record]) -> str:
    """ "1 run diverged, 2 runs unfinished"."""
    counts = Counter(UNTESTED.get(run.status, "not tested") for run in runs)
    return ", ".join(f"{count} run{'' if count == 1 else 's'} {what}" for what, count in counts.items())


def _outcome(groups: list[Group], prefix: str) -> str:
    """What came out on one task."""
    tested = [group for group in groups if any(run.accuracy() for run in group.runs)]
    if len(tested) == 1:
        return prefix + _alone(tested[0])
    length, scores = _scores(tested)
    low, high = (choose(score.spread.mean for score in scores.values()) for choose in (min, max))
    best = [label for label, score in scores.items() if score.spread.mean == high]
    worst = [label for label, score in scores.items() if score.spread.mean == low]
    place = f"at {_relative(length, tested)}"
    if low == high:
        same = f"{prefix}{place} all {len(scores)} configurations have the same test accuracy"
        return f"{same}, {_score(scores[best[0]])}"
    verb = "have" if len(best) > 1 else "has"
    told = (
        f"{prefix}{place} {_holders(best, len(scores))} {verb} the highest test accuracy, {_score(scores[best[0]])}, "
        f"and {_holders(worst, len(scores))} the lowest, {_score(scores[worst[0]])}"
    )
    return told + _caution([scores[name] for name in (*best, *worst)], scores[best[0]], scores[worst[0]])


def _scores(tested: list[Group]) -> tuple[int, dict[str, Sample]]:
    """The longest of the lengths at which most configurations were tested, and their accuracies there."""
    count = Counter(
        length for group in tested for length in {k for run in group.runs for k in run.accuracy()}
    )
    length = max(count, key=lambda one: (count[one], one))
    scores = {group.label: accuracy_at(group, length) for group in tested}
    return length, {label: score for label, score in scores.items() if score.spread.n}


def _holders(labels: list[str], among: int) -> str:
    return _list(labels) if len(labels) <= NAMED else f"{len(labels)} of {among} configurations"


def _caution(ends: list[Sample], best: Sample, worst: Sample) -> str:
    """How far the difference between the best and the worst can be trusted."""
    if any(score.spread.n == 1 for score in ends):
        return "; a single seed shows no spread"
    return "; their ranges over seeds overlap: not separable" if best.low <= worst.high else ""


def _alone(group: Group) -> str:
    """The accuracies of the only configuration that was tested: where it was trained, and at the longest."""
    lengths = sorted({length for run in group.runs for length in run.accuracy()})
    trained = group.runs[0].task().length
    shown = [length for length in dict.fromkeys((trained, lengths[-1])) if length in lengths] or lengths[-1:]
    told = " and ".join(
        f"{_score(accuracy_at(group, length))} at {_relative(length, [group])}" for length in shown
    )
    several = any(accuracy_at(group, length).spread.n > 1 for length in shown)
    return (
        f"the test accuracy of {group.label} is {told}{'' if several else '; a single seed shows no spread'}"
    )


def _score(score: Sample) -> str:
    """ "0.933 on average (0.800 to 1.00 over 3 seeds)"; of one seed "0.933"."""
    mean, low, high = map(_short, (score.spread.mean, score.low, score.high))
    return f"{mean} on average ({low} to {high} over {score.spread.n} seeds)" if score.spread.n > 1 else mean


def _short(value: float) -> str:
    """`fraction` with three significant digits at most."""
    text = fraction(value)
    return "1.00" if text == "1.000" else text


def _relative(length: int, groups: list[Group]) -> str:
    """ "length 256 (16 times the training length)"."""
    trained = {run.task().length for group in groups for run in group.runs}
    if len(trained) > 1:
        return f"length {length}"
    times = length / trained.pop()
    return f"length {length} ({'the training length' if times == 1 else f'{times:.3g} times the training length'})"
