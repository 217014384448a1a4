"""The page: one HTML file that needs nothing beside it, and the figures as files of their own."""

from __future__ import annotations

import base64
import datetime
import functools
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from statemix import __version__
from statemix.extras import require
from statemix.report.drawing import new_figure, render
from statemix.report.figures import FIGURES, draw_lengths, draw_spectrum
from statemix.report.runs import Group, read_groups, tasks_of, trained_lengths
from statemix.report.sentences import listed, sentences
from statemix.report.tables import cell, make_rows, page_columns, some_of, statuses, tested_lengths, to_csv
from statemix.tasks import Task
from statemix.text import visible
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png")
"""The endings of a figure's file, as `render` makes them."""

TITLES = {
    "permutation": "permutation group S",
    "alternating": "alternating group A",
    "cyclic": "cyclic group Z",
}
"""Tasks whose name and n read better another way."""


def write_report(folders: Iterable[str | Path], out: str | Path) -> Path:
    """Write index.html, its figures (SVG and PNG) and runs.csv into `out`; returns the page's path.

    folders: run folders, or folders that hold some. The page embeds its figures and opens from disk without a
    network. Runs that diverged, were interrupted or still go on are listed as such. Every file is written whole
    or not at all, and none before all are made. Errors: ValueError naming a folder that is no run; ImportError
    for a missing extra; RunError for weights that cannot be read and a file that cannot be written.
    """
    folders, out = list(map(Path, folders)), Path(out)
    require("jinja2", "matplotlib", "pandas")
    import jinja2

    jinja = jinja2.Environment(
        loader=jinja2.PackageLoader("statemix.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    groups = read_groups(folders)
    rows = make_rows(groups)
    content: dict[str, bytes] = {"runs.csv": to_csv(rows).encode()}
    images = []
    for name, (heading, make, caption) in FIGURES.items():
        svg, content[f"{name}.png"] = render(functools.partial(make, groups))
        content[f"{name}.svg"] = svg
        images.append((heading, caption(groups), base64.b64encode(svg).decode()))
    command = visible(shlex.join(["statemix", "report", *map(str, folders), "--out", str(out)]))
    content["index.html"] = jinja.get_template("page.html").render(
        images=images, **_words(groups, rows), date=datetime.date.today().isoformat(), torch=torch.__version__,
        version=__version__, command=command,
    ).encode()  # fmt: skip
    for name, one in content.items():
        _write(out / name, one)
    return out / "index.html"


def _words(groups: list[Group], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of the runs, besides the figures."""
    tasks, lengths = tasks_of(groups), tested_lengths(groups)
    runs = [run for group in groups for run in group.runs]
    return {
        "title": _title(tasks),
        "sentences": sentences(groups),
        "groups": groups,
        "runs": len(runs),
        "statuses": statuses(runs),
        "trained": ", ".join(map(str, trained_lengths(groups))),
        "overlaps": list(dict.fromkeys(task.overlap for task in tasks)),
        "tables": page_columns(rows, lengths),
        "left_out": len(lengths) - len(some_of(lengths)),
        "rows": [{column: cell(column, value, row["n"]) for column, value in row.items()} for row in rows],
        "as_json": lambda config: visible(json.dumps(config, indent=2, ensure_ascii=False), keep="\n"),
        "visible": visible,
    }


def write_readme_picture(folders: Iterable[str | Path], out: str | Path) -> Path:
    """One wide PNG or SVG of the same runs: accuracy by length, and the eigenvalues of two configurations at most.

    Errors: ValueError for a name that ends otherwise; and as `write_report`.
    """
    out = check_picture(Path(out))
    require("matplotlib", "pandas")
    groups = read_groups(folders)
    pictures = dict(zip(PICTURES, render(lambda: _picture(groups)), strict=True))
    _write(out, pictures[out.suffix.lower()])
    return out


def check_picture(out: Path) -> Path:
    """`out` if it has the ending of a picture, else ValueError."""
    if out.suffix.lower() not in PICTURES:
        raise ValueError(f"picture: got {str(out)!r}, expected a name that ends in {' or '.join(PICTURES)}")
    return out


def _picture(groups: list[Group]) -> Figure:
    figure, shown = new_figure(11, 4.2), groups[-2:]
    axes, *panels = figure.subplots(1, 1 + len(shown), width_ratios=[1.5, *[1] * len(shown)])
    draw_lengths(axes, groups)
    legend: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "fontsize": 9.5, "ncols": 3}
    drawn = axes.legend(**legend, columnspacing=1.2).get_texts()
    axes.set_title(_title(tasks_of(groups)), fontsize=11, pad=20 + 14 * (-(-len(drawn) // 3)))
    for panel, group in zip(panels, shown, strict=True):
        draw_spectrum(panel, group)
        panel.set_title(f"{group.label}\neigenvalues of its transitions", fontsize=10.5)
    return figure


def _title(tasks: Sequence[Task]) -> str:
    """The tasks of a page, as its heading."""
    names = (f"{TITLES.get(task.name, task.name)}{task.options.get('n', '')}" for task in tasks)
    title = listed(dict.fromkeys(names)).replace("_", " ")
    return title[0].upper() + title[1:]


def _write(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))
