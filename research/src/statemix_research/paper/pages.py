"""Pages: an experiment's question, command, figures, notes and tables in Markdown, and one page of all claims."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from statemix_research.paper.claims import RULE, VERDICTS, Judged, claims_table, judge
from statemix_research.paper.experiment import Experiment, Table
from statemix_research.paper.figures import Drawn, draw, png_of
from statemix_research.paper.selection import frame_of, with_losses
from statemix_research.paper.source import Results
from statemix_research.paper.tables import code, plain, table, to_csv
from statemix_research.sweeps.grid import describe
from statemix_research.sweeps.store import DAMAGED, FAILED, UNFINISHED

from statemix.text import visible
from statemix.training.files import replace_file

SMALL = "The preset is small: it shows that everything runs. Its numbers say nothing about the paper's."

CELLS = (
    "Cells: mean (minimum–maximum; n) over seeds on test data, the setting chosen on validation data among those "
    "with the most runs. A run that diverged counts as accuracy 0."
)

TIMED_CELLS = "Cells: median (quartiles; n samples) of forward and backward."


def write_page(results: Results, out: Path) -> list[Path]:
    """Write NAME.md, its figures (PNG) and data/NAME.csv into the folder `out`; returns the paths.

    Errors: RunError for a file that cannot be written.
    """
    name, frame = results.experiment.name, frame_of(results.rows)
    drawn = {file: one for file, view in results.experiment.figures.items() if (one := draw(view, frame))}
    contents: dict[Path, bytes] = {out / f"{file}.png": png_of(one.figure) for file, one in drawn.items()}
    if not frame.empty:
        contents[out / "data" / f"{name}.csv"] = to_csv(frame).encode()
    contents[out / f"{name}.md"] = ("\n".join(page_lines(results, drawn)) + "\n").encode()
    for path, content in contents.items():
        write_file(path, content)
    return list(contents)[::-1]


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; folders are made."""
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def page_lines(results: Results, drawn: dict[str, Drawn] | None = None) -> Iterator[str]:
    """The page of an experiment; figures that are `drawn` are linked as files beside it."""
    experiment, frame = results.experiment, frame_of(results.rows)
    yield from (f"# {experiment.title}", "", experiment.question, "", *commands_of(results), "")
    if results.preset == "small":
        yield from (f"**{SMALL}**", "")
    for name, one in (drawn or {}).items():
        title = experiment.figures[name].title
        yield from (f"![{title}]({name}.png)", "", f"*{title}. {_caption(one, results.rows)}*", "")
    if results.preset != "small":
        yield from notes_of(experiment.name)
    for view in experiment.tables:
        lines = table(view, _whole(view, frame, results.source)) if not frame.empty else []
        if lines:
            yield from (f"## {view.title}", "", *lines, "")
    yield from ("## Data", "", f"{TIMED_CELLS if experiment.is_timing else CELLS}", "")
    yield from _origin(results)
    if drawn is not None and not frame.empty:
        yield f"- Every run: [{experiment.name}.csv](data/{experiment.name}.csv)."


def commands_of(results: Results) -> list[str]:
    """Lines of code: what runs an experiment, and what makes its page of the results that it is made of."""
    name, preset = results.experiment.name, ["--preset", results.preset]
    store = results.source.parent if results.source.suffix == ".jsonl" else results.source
    settings = [word for setting in results.settings for word in ("--setting", setting)]
    run = ["run", name, *results.settings, *preset]
    page = ["paper", name, *settings, *preset, "--store", str(store)]
    return [f"    {visible(shlex.join(['statemix-research', *words]))}" for words in (run, page)]


def _whole(view: Table, frame: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The rows of a table: the experiment's and the losses that it has besides."""
    folder = source.parent if source.suffix == ".jsonl" else source
    return with_losses(frame, folder / view.losses, view.value) if view.losses else frame


def _caption(drawn: Drawn, rows: Iterable[dict[str, Any]]) -> str:
    low, high = drawn.n
    hardware = dict.fromkeys(row["hardware"] for row in rows if row.get("hardware"))
    n = f"n = {low}" if low == high else f"n = {low} to {high}"
    return f"{drawn.note} {n}. {', '.join(map(plain, hardware))}."


def notes_of(name: str) -> list[str]:
    """What the experiment shows and does not show, as written beside it; nothing without such a file."""
    path = files("statemix_research.paper") / "notes" / f"{name}.md"
    return [*path.read_text(encoding="utf-8").strip().split("\n"), ""] if path.is_file() else []


def _standing(row: dict[str, Any]) -> str:
    """The status of a run; one that came to its end may lack a probe."""
    return "trained but not probed" if row["status"] == UNFINISHED and "ended" in row else str(row["status"])


def _origin(results: Results) -> Iterator[str]:
    """Where the numbers come from."""
    runs = list({row["key"]: row for row in results.rows}.values())
    counts = Counter(map(_standing, runs))
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    yield f"- Runs: {listed}; preset {results.preset}; read from {code(results.source)}."
    places = Counter((row.get("hardware"), row.get("torch")) for row in runs if row.get("hardware"))
    for (hardware, version), count in places.items():
        yield f"- Hardware: {plain(hardware)}, torch {plain(version)} ({count} runs)."
    dates = sorted({row["date"] for row in runs if row.get("date")})
    if dates:
        yield f"- Date: {dates[0]}" + (f" to {dates[-1]}." if dates[-1] != dates[0] else ".")
    if results.skipped:
        why = "; ".join(f"{plain(size)} ({plain(reason)})" for size, reason in results.skipped.items())
        yield f"- Sizes that a model does not have: {why}."
    for row in runs:
        if row["status"] in (FAILED, DAMAGED):
            what = f"{row['key']}, {describe(row)}: {str(row.get('error')).rstrip('.')}"
            yield f"- {row['status'].capitalize()}: {plain(what)}."


def claims_page(every: Iterable[Results]) -> str:
    """The page of claims, in Markdown."""
    judged: dict[tuple[str, str], Judged] = {}  # equal claims once
    for results in every:
        frame = frame_of(results.rows)
        judged |= {(one.text, one.source): judge(one, frame) for one in results.experiment.claims}
    counts = Counter(one.verdict for one in judged.values())
    summed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    head = ["# The paper's claims", "", f"{len(judged)} claims: {summed}.", "", RULE]
    return "\n".join([*head, *claims_table(judged.values()), ""])


def empty_page(experiment: Experiment) -> str:
    """The page of an experiment that has no results."""
    nothing = Results(experiment, "full", (), [], {}, Path("research/results"))
    lines = [f"# {experiment.title}", "", experiment.question, "", *commands_of(nothing), ""]
    return "\n".join([*lines, "There are no results of the full preset.", "", *notes_of(experiment.name)])
