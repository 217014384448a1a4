"""An experiment's rows, from a store or an exported file, as a Markdown page with figures."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from statemix_research.paper.evidence_checks import Checks, checked
from statemix_research.paper.evidence_figures import draw
from statemix_research.paper.evidence_tables import claims_table, rates_table, table
from statemix_research.paper.markdown import code, link, plain
from statemix_research.sweeps import Experiment, Plan, Store, make_plan, read_export, reasons, rows_of
from statemix_research.sweeps.grid import describe
from statemix_research.sweeps.store import DAMAGED, FAILED, MISSING, UNFINISHED

from statemix.report.page import render
from statemix.text import visible
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = "The preset is small: it shows that everything runs. Its numbers say nothing about the paper's."

HOW = (
    "Cells: mean ± standard deviation over seeds on test data, n runs, with the setting chosen on validation data "
    "among those with the most runs; test data take no part in the choice. A run that diverged counts as accuracy 0. "
    "“agrees”: the published number is within two deviations (at least 0.02) of the mean."
)

DRAWN = {
    "lines": "Points: single runs; line and bars: mean ± sd. White: fewer runs than others of its panel have.",
    "ranking": "Points: single runs; bars: mean ± sd.",
    "spectra": "Eigenvalues of all runs, a color for each, in the circle of radius 1.",
}
"""What is drawn, by the kind of figure."""

HOW_TIMED = (
    "Cells: the median of repeated passes, launched one by one (layers: replayed as CUDA graphs on a GPU); "
    "n such medians, their quartiles are in the raw data."
)


class Evidence(NamedTuple):
    """Everything that a page about an experiment needs."""

    experiment: Experiment
    preset: str
    settings: tuple[str, ...]
    rows: list[dict[str, Any]]
    left_out: dict[str, str]
    source: Path
    checks: Checks | None = None


def plan_in_store(
    experiment: Experiment, store: Store, preset: str | None, settings: Iterable[str] = ()
) -> Plan:
    """The plan of a preset; without one, of the full preset if the store has any of its runs, else of the small one. Of
    an empty store nothing is planned.

    ValueError as `make_plan`.
    """
    settings, here = tuple(settings), store.keys()
    if not here and not settings:
        experiment = replace(experiment, presets=dict.fromkeys(experiment.presets, ()))
    names = experiment.presets if preset is None else (preset,)
    plans = []
    for name in names:
        plans.append(make_plan(experiment, name, settings, to_run=False))
        if any(cell.job.key in here for cell in plans[-1].cells):
            return plans[-1]
    return plans[0]


def read_evidence(
    experiment: Experiment, source: Path, preset: str | None = None, settings: Iterable[str] = ()
) -> Evidence:
    """The rows of an experiment from a store or, if `source` is a file, from what `export` wrote.

    Errors: FileNotFoundError without a source, ValueError for a preset or a file that is none, or without any run.
    """
    if source.is_file():
        head, rows = read_export(source, experiment.name)
        if preset not in (None, head["preset"]):
            raise ValueError(f"preset: got {preset!r}, {source} holds {head['preset']!r}")
        left_out = reasons(head["left_out"])
        return Evidence(experiment, head["preset"], tuple(head["settings"]), rows, left_out, source)
    if not source.exists():
        raise FileNotFoundError(2, "no such store of runs", str(source))
    store = Store(source)
    plan = plan_in_store(experiment, store, preset, settings)
    rows = rows_of(plan, store)
    if all(row["status"] == MISSING for row in rows):
        raise ValueError(f"store: {source} has no run of {experiment.name} ({plan.preset})")
    return Evidence(experiment, plan.preset, plan.settings, rows, plan.reasons, source)


def write_evidence(
    evidence: Evidence, command: str, out: Path | None, figures: Path | None
) -> tuple[str, list[Path]]:
    """The section of an experiment, put into the page `out` in the place of an older one, and its figures as PNG.

    Figures are drawn when there is a page or a folder for them. Returns the text and the figures' paths.
    """
    folder = figures if figures is not None else out.parent if out is not None else None
    drawn: dict[str, Path] = {}
    for view in evidence.experiment.figures if folder is not None else ():
        figure = draw(view, evidence.rows)
        if figure is not None and folder is not None:
            drawn[view.name] = _save(figure, folder / f"{view.name}.png")
    links = {
        name: os.path.relpath(path, out.parent if out is not None else ".") for name, path in drawn.items()
    }
    text = "\n".join(_section(evidence, command, links))
    if out is not None:
        whole = _replaced(out, evidence.experiment.name, text)
        replace_file(out, lambda temporary: temporary.write_text(whole, encoding="utf-8"))
    return text, list(drawn.values())


def _save(figure: Figure, path: Path) -> Path:
    _, png = render(lambda: figure)
    replace_file(path, lambda temporary: temporary.write_bytes(png))
    return path


def _replaced(out: Path, name: str, text: str) -> str:
    """The page with the experiment's section in the place of its older one, or at the end."""
    begin, end = f"<!-- experiment {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{text}\n{end}"
    try:
        old = out.read_text(encoding="utf-8") if out.exists() else "# Results\n"
    except UnicodeDecodeError as error:
        raise ValueError(f"out: {out} is no Markdown page: {error}") from None
    marks = (
        rf"^{re.escape(begin)}$.*?^{re.escape(end)}$"  # lines of their own: a name may hold the text of one
    )
    page, found = re.subn(marks, lambda _: section, old, count=1, flags=re.MULTILINE | re.DOTALL)
    return page if found else f"{old.rstrip()}\n\n{section}\n"


def _section(evidence: Evidence, command: str, links: dict[str, str]) -> Iterator[str]:
    experiment, rows = evidence.experiment, evidence.rows
    yield from (f"## {experiment.title}", "", experiment.what, "", f"    {visible(command)}", "")
    yield from _origin(evidence)
    yield f"- {HOW_TIMED if experiment.alone else HOW}"
    yield from checked(rows, evidence.checks)
    if evidence.preset == "small":
        yield from ("", f"**{SMALL}**")
    for name, path in links.items():
        figure = next(view for view in experiment.figures if view.name == name)
        yield from (
            "",
            f"![{figure.title}]({link(path)})",
            "",
            f"*{figure.title}. {'Medians.' if experiment.alone else DRAWN[figure.kind]}*",
        )
    for view in experiment.tables:
        lines = table(view, rows)
        if lines:
            equal = f" Compared {view.comparison}." if view.comparison else ""
            yield from (
                "",
                f"### {view.title}",
                "",
                f"{view.value.replace('_', ' ').capitalize()}.{equal}",
                "",
                *lines,
            )
    if experiment.claims:
        yield from ("", "### Beside the paper", "", *claims_table(experiment.claims, rows))
    tried = rates_table(rows)
    if tried:
        yield from (
            "",
            "<details><summary>Everything that was tried, the chosen setting in bold</summary>",
            "",
            *tried,
        )
        yield from ("", "</details>")


def _standing(row: dict[str, Any]) -> str:
    """The status of a run; one that has come to its end may lack a measurement."""
    return "trained but not measured" if row["status"] == UNFINISHED and "ended" in row else row["status"]


def _origin(evidence: Evidence) -> Iterator[str]:
    """Where the numbers come from."""
    rows = evidence.rows
    runs = {row["key"]: row for row in rows}.values()
    counts = Counter(map(_standing, runs))
    yield f"- Runs: {', '.join(f'{count} {status}' for status, count in counts.items())}; preset {evidence.preset}."
    yield f"- Raw data: {code(evidence.source)}."
    places = Counter((row.get("hardware"), row.get("torch")) for row in runs if row.get("hardware"))
    for (hardware, version), count in places.items():
        yield f"- Hardware: {plain(hardware)}, torch {plain(version)} ({count} runs)."
    dates = sorted({row["date"] for row in runs if row.get("date")})
    if dates:
        yield f"- Date: {dates[0]}" + (f" to {dates[-1]}." if dates[-1] != dates[0] else ".")
    for model, reason in evidence.left_out.items():
        yield f"- Left out: {plain(model)}: {plain(reason)}."
    for row in runs:
        if row["status"] in (FAILED, DAMAGED):
            what = f"{row['key']}, {describe(row)}: {str(row.get('error')).rstrip('.')}"
            yield f"- {row['status'].capitalize()}: {plain(what)}."
