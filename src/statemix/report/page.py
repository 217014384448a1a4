"""The page: one HTML file that needs nothing beside it, and the figures as files of their own."""

from __future__ import annotations

import base64
import datetime
import io
import json
import shlex
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from statemix import __version__
from statemix.extras import missing
from statemix.report.figures import FIGURES, STYLE, draw_lengths, new_figure
from statemix.report.groups import Group, read_groups
from statemix.report.spectrum import draw_spectrum
from statemix.report.table import lengths_of, row, statuses, text, to_csv
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160

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
    template = _template()
    groups = read_groups(folders)
    rows = [row(group, lengths_of(groups)) for group in groups]
    made: dict[str, bytes] = {}
    images = {}
    for name, (make, caption) in FIGURES.items():
        made[f"{name}.svg"], made[f"{name}.png"] = render(lambda make=make: make(groups))
        images[name] = {"data": base64.b64encode(made[f"{name}.svg"]).decode(), "caption": caption}
    made["runs.csv"] = to_csv(rows).encode()
    command = shlex.join(["statemix", "report", *map(str, folders), "--out", str(out)])
    made["index.html"] = template.render(
        images=images, command=command, **_words(groups, rows), date=datetime.date.today().isoformat(),
        torch=torch.__version__, version=__version__,
    ).encode()  # fmt: skip
    for name, content in made.items():
        _write(out / name, content)
    return out / "index.html"


def _words(groups: list[Group], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of the runs, besides the figures."""
    runs = [run for group in groups for run in group.runs]
    tasks = [group.runs[0].task() for group in groups]
    return {
        "title": _title(groups),
        "groups": groups,
        "runs": len(runs),
        "statuses": statuses(runs),
        "trained": ", ".join(map(str, sorted({task.length for task in tasks}))),
        "overlaps": list(dict.fromkeys(task.overlap for task in tasks)),
        "columns": list(rows[0]),
        "rows": [[text(value, column, cells["n"]) for column, value in cells.items()] for cells in rows],
        "configurations": [json.dumps(group.config, indent=2) for group in groups],
    }


def write_readme_picture(folders: Iterable[str | Path], out: str | Path) -> Path:
    """One wide PNG of the same runs: accuracy against length, and the eigenvalues of two configurations at most.

    Errors as `write_report`.
    """
    groups = read_groups(folders)
    _, png = render(lambda: _picture(groups))
    _write(Path(out), png)
    return Path(out)


def _picture(groups: list[Group]) -> Figure:
    figure = new_figure(11, 4.2)
    shown = groups[:2]
    axes, *panels = figure.subplots(1, 1 + len(shown), width_ratios=[1.5, *[1] * len(shown)])
    draw_lengths(axes, groups)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9.5, ncols=3, columnspacing=1.2)
    axes.set_title(_title(groups), fontsize=11, pad=20 + 14 * (-(-len(groups) // 3)))
    for panel, group in zip(panels, shown, strict=True):
        draw_spectrum(panel, group)
        panel.set_title(f"{group.label}\neigenvalues of its transitions", fontsize=10.5)
    return figure


def render(make: Any) -> tuple[bytes, bytes]:
    """A figure, made and saved under `STYLE`, as SVG (the same bytes for the same figure) and as PNG."""
    try:
        import matplotlib
    except ImportError:
        raise ImportError(missing("matplotlib")) from None
    with matplotlib.rc_context(STYLE):
        figure, svg, png = make(), io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", dpi=PNG_DPI, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=PNG_DPI)
    return svg.getvalue(), png.getvalue()


def _title(groups: list[Group]) -> str:
    """The tasks of a page, as its heading."""
    tasks = [group.runs[0].task() for group in groups]
    names = (f"{TITLES.get(task.name, task.name)}{task.options.get('n', '')}" for task in tasks)
    title = ", ".join(dict.fromkeys(names)).replace("_", " ")
    return title[0].upper() + title[1:]


def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ImportError(missing("jinja2")) from None
    source = files("statemix.report").joinpath("templates/page.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


def _write(path: Path, content: bytes) -> None:
    replace_file(path, lambda temporary: temporary.write_bytes(content))
