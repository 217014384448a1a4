"""Tables of an experiment in Markdown: chosen on validation data, with deviation and n in every cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from statemix_research.paper.markdown import markdown, plain
from statemix_research.paper.selection import (
    Candidate,
    averaged,
    grouped,
    matching,
    numbers,
    select,
    verdict,
    within,
)
from statemix_research.sweeps.experiment import Claim, TableView
from statemix_research.sweeps.models import MODELS

from statemix.analysis.statistics import Spread, spread

Row = Mapping[str, Any]

SLACK = 1.1
"""How much more time per step than the reference counts as equal time."""

NONE = "–"

FIXED = ("task", "model", "basis", "size", "normalization", "transition_bias", "depth")
"""Labels of a table of everything that was tried; the learning rate and weight decay vary within a line."""

ALWAYS = FIXED[:2]
"""Those of them that have a column even where all runs share one value."""


def cell(value: Spread, diverged: int = 0) -> str:
    """ "0.998 ± 0.001 (n = 3)", with how many diverged."""
    if not value.n:
        return NONE
    large = abs(value.mean) >= 1000
    text = f"{value.mean:,.0f} ± {value.deviation:,.0f}".replace(",", "\u2009") if large else str(value)
    if value.n == 1 and large:
        text = text.partition(" ±")[0]
    return f"{text} (n = {value.n}{f', {diverged} diverged' if diverged else ''})"


def listed(rows: Sequence[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """`grouped`, models in the order of the catalogue, other labels as they come: which runs are there does not move a
    line."""
    catalogue = {model.label: place for place, model in enumerate(MODELS.values())}
    seen = [list(dict.fromkeys(row.get(key) for row in rows)) for key in by]

    def place(group: tuple[tuple[Any, ...], list[Row]]) -> list[int]:
        first = [values.index(name) for values, name in zip(seen, group[0], strict=True)]
        return [
            catalogue.get(name, len(catalogue) + k) if key == "model" else k
            for key, name, k in zip(by, group[0], first, strict=True)
        ]

    return dict(sorted(grouped(rows, by).items(), key=place))


def table(view: TableView, rows: Sequence[Row]) -> list[str]:
    """The lines of a table; none when no run has its labels."""
    mine = matching(rows, view.where)
    if view.time_of:
        mine = _no_slower(mine, view.time_of)
    if not any(numbers([row], view.value) for row in mine):
        return []
    return _by_length(view, mine) if view.lengths else _by_label(view, mine)


def _no_slower(rows: Sequence[Row], reference: Mapping[str, Any]) -> list[Row]:
    """The groups that take no more time per step than the reference on the same device, task by task."""
    kept: list[Row] = []
    for (task,), members in grouped(rows, ("task",)).items():
        mine = matching(members, {**reference, "task": task})
        places = [row["timed_on"] for row in mine if row.get("timed_on")]
        if places:
            place = {"timed_on": places[0]}
            budget = SLACK * spread(numbers(matching(mine, place), "milliseconds_per_step")).mean
            kept += within(members, FIXED[1:], "milliseconds_per_step", budget, place)
    return kept


def _by_label(view: TableView, rows: Sequence[Row]) -> list[str]:
    """A line for all that has a run; a mean over fewer columns than the others' is another number, and is not given."""
    columns = _in_order(row.get(view.column) for row in rows)
    asked = view.where.get(view.column)
    all_columns = len(asked) if isinstance(asked, list) else len(columns)
    lines = []
    for names, members in listed(rows, view.rows).items():
        chosen = [
            _chosen(matching(members, {view.column: column}), view.over, view.value) for column in columns
        ]
        if not any(chosen):
            continue
        cells = [
            NONE if one is None else cell(one.value, one.diverged) + _setting(one, view.over)
            for one in chosen
        ]
        if view.mean:
            whole = [one.value for one in chosen if one is not None]
            cells.append(cell(averaged(whole)) if len(whole) == all_columns else NONE)
        lines.append([*map(_word, names), *cells])
    prefix = f"{view.column} = " if view.column in ("m", "length") else ""
    heads = [f"{prefix}{_word(column)}" for column in columns] + (["mean"] if view.mean else [])
    return markdown([*view.rows, *heads], lines)


def _in_order(values: Iterable[Any]) -> list[Any]:
    """Each value once: numbers by size, others as they come."""
    each = list(dict.fromkeys(values))
    return sorted(each) if all(isinstance(value, (int, float)) for value in each) else each


def _by_length(view: TableView, rows: Sequence[Row]) -> list[str]:
    lengths = sorted({int(length) for row in rows for length in row.get("accuracies", {})})
    lines = []
    for names, members in listed(rows, view.rows).items():
        chosen = _chosen(members, view.over, view.value)
        if chosen is not None:
            cells = [cell(at_length(chosen, length), chosen.diverged) for length in lengths]
            lines.append([*map(_word, names), *cells])
    return markdown([*view.rows, *map(str, lengths)], lines)


def at_length(chosen: Candidate, length: int) -> Spread:
    """The test accuracy of a candidate's runs at a length; a run that diverged counts 0 where the others count."""
    tested = [
        run["accuracies"][str(length)] for run in chosen.runs if str(length) in run.get("accuracies", {})
    ]
    return spread(tested + [0.0] * chosen.diverged if tested else [])


def _chosen(rows: Sequence[Row], over: Sequence[str], value: str) -> Candidate | None:
    selection = select(rows, over, value)
    return None if selection is None else selection.chosen


def _setting(chosen: Candidate, over: Sequence[str]) -> str:
    """What was chosen, in small print."""
    return f"<br><sub>{_named(chosen.setting)}</sub>" if over else ""


def _named(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_word(value)}" for key, value in setting.items() if key != "basis")


def _word(value: Any) -> str:
    return NONE if value is None else f"{value:g}" if isinstance(value, float) else plain(value)


def rates_table(rows: Sequence[Row]) -> list[str]:
    """For every task, model and size: each learning rate's validation and test accuracy, the chosen one in bold."""
    trained = [row for row in rows if "lr" in row]
    fixed = [key for key in FIXED if key in ALWAYS or len({row.get(key) for row in trained}) > 1]
    lines = []
    for names, members in grouped(trained, fixed).items():
        selection = select(members, ("lr", "weight_decay"))
        for one in selection.tried if selection is not None else ():
            mark = "**" if one is selection.chosen else ""  # type: ignore[union-attr]
            setting = f"{mark}{_named(one.setting)}{mark}"
            lines.append([*map(_word, names), setting, cell(one.validation), cell(one.value, one.diverged)])
    return markdown([*fixed, "setting", "validation", "test"], lines) if lines else []


def claims_table(claims: Sequence[Claim], rows: Sequence[Row]) -> list[str]:
    """What the paper says, what these runs say, and whether they agree."""
    return markdown(
        ["the paper", "source", "ours", "verdict"],
        [[one.text, one.source, *_judged(one, rows)] for one in claims],
    )


def _judged(claim: Claim, rows: Sequence[Row]) -> Iterator[str]:
    ours = claimed(claim, rows, claim.where)
    other = claimed(claim, rows, claim.against) if claim.against is not None else None
    yield cell(ours) + (f" against {cell(other)}" if other is not None else "")
    bound = claim.number if other is None else other.mean if other.n else None
    if not ours.n or bound is None:
        yield "not run"
    elif claim.relation == "near":
        yield verdict(ours, bound)
    else:
        holds = ours.mean >= bound if claim.relation == "above" else ours.mean <= bound
        yield "agrees" if holds else f"differs ({ours.mean - bound:+.3g})"


def claimed(claim: Claim, rows: Sequence[Row], where: Mapping[str, Any]) -> Spread:
    """The value of the runs that a claim is about, chosen on validation data; averaged over `across`."""
    mine = matching(rows, where)
    if not claim.across:
        chosen = _chosen(mine, claim.over, claim.value)
        return spread([]) if chosen is None else chosen.value
    parts = [_chosen(members, claim.over, claim.value) for members in grouped(mine, (claim.across,)).values()]
    asked = where.get(claim.across)
    if any(one is None for one in parts) or (isinstance(asked, list) and len(parts) < len(asked)):
        return spread([])  # a mean over fewer tasks than the paper's is another number
    return averaged([one.value for one in parts if one is not None])
