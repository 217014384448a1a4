"""The page: one HTML file that needs nothing beside it, and the figures as files of their own."""

from __future__ import annotations

import base64
import datetime
import json
import shlex
import struct
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from statemix import __version__
from statemix.extras import require
from statemix.report.figures import FIGURES, PNG_DPI, draw_lengths, draw_spectrum, new_figure, render
from statemix.report.groups import Group, merge_groups, read_groups
from statemix.report.sentences import sentences
from statemix.report.tables import cell, make_rows, page_columns, some_of, statuses, tested_lengths, to_csv
from statemix.tasks import Task
from statemix.text import visible
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png")
"""The endings of a figure's file, as `render` makes them."""

TITLED = 4
"""Tasks that a heading names."""

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
    folders, out = [Path(folder) for folder in folders], Path(out)
    require("jinja2", "matplotlib", "pandas")
    template = _template()
    groups = read_groups(folders)
    rows = make_rows(groups)
    files: dict[str, bytes] = {"runs.csv": to_csv(rows).encode()}
    images = []
    for name, (heading, make, caption) in FIGURES.items():
        svg, png = files[f"{name}.svg"], files[f"{name}.png"] = render(lambda make=make: make(groups))  # type: ignore[misc]
        data, size = base64.b64encode(svg).decode(), png_size(png)
        images.append({"heading": heading, "caption": caption(groups), "data": data, "size": size})
    files["index.html"] = template.render(
        images=images, **_words(groups, rows), date=datetime.date.today().isoformat(), torch=torch.__version__,
        version=__version__, command=visible(shlex.join(["statemix", "report", *map(str, folders), "--out", str(out)])),
    ).encode()  # fmt: skip
    for name, content in files.items():
        _write(out / name, content)
    return out / "index.html"


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a figure in the pixels of a page, of which an inch has 96."""
    width, height = struct.unpack(">II", png[16:24])
    return round(width * 96 / PNG_DPI), round(height * 96 / PNG_DPI)


def _words(groups: list[Group], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of the runs, besides the figures."""
    tasks = _tasks(groups)
    lengths = tested_lengths(groups)
    return {
        "title": _title(tasks),
        "sentences": sentences(groups),
        "groups": groups,
        "runs": sum(len(group.runs) for group in groups),
        "statuses": statuses(*groups),
        "trained": ", ".join(map(str, sorted({task.length for task in tasks}))),
        "overlaps": list(dict.fromkeys(task.overlap for task in tasks)),
        "tables": page_columns(rows, lengths),
        "left_out": len(lengths) - len(some_of(lengths)),
        "rows": [{column: cell(column, value, row["n"]) for column, value in row.items()} for row in rows],
        "configurations": [
            visible(json.dumps(group.config, indent=2, ensure_ascii=False), keep="\n") for group in groups
        ],
        "seeds": [_seeds([run.seed for run in group.runs]) for group in groups],
        "visible": visible,
    }


def _tasks(groups: list[Group]) -> list[Task]:
    return list({id(run.task): run.task for group in groups for run in group.runs}.values())


def _seeds(seeds: list[int]) -> str:
    """ "seeds 0–4, 7": sorted, with ranges."""
    spans: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    parts = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}–{b}" for a, b in spans]
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(parts)}"


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
    figure = new_figure(11, 4.2)
    shown, drawn = groups[:2], merge_groups(groups)
    axes, *panels = figure.subplots(1, 1 + len(shown), width_ratios=[1.5, *[1] * len(shown)])
    draw_lengths(axes, drawn)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9.5, ncols=3, columnspacing=1.2)
    axes.set_title(_title(_tasks(groups)), fontsize=11, pad=20 + 14 * (-(-len(drawn) // 3)))
    for panel, group in zip(panels, shown, strict=True):
        draw_spectrum(panel, group)
        panel.set_title(f"{group.label}\neigenvalues of its transitions", fontsize=10.5)
    return figure


def _title(tasks: Sequence[Task]) -> str:
    """The tasks of a page, as its heading."""
    names = list(
        dict.fromkeys(f"{TITLES.get(task.name, task.name)}{task.options.get('n', '')}" for task in tasks)
    )
    if len(names) > TITLED:
        names = [*names[: TITLED - 1], f"{len(names) - TITLED + 1} more"]
    title = ", ".join(names).replace("_", " ")
    return title[0].upper() + title[1:]


def _template() -> Any:
    import jinja2

    source = files("statemix.report").joinpath("templates/page.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


def _write(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))
