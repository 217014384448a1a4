"""The picture of the scans' speed: percent of a plain copy, by block size and pass, beside what was asked."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.files import write_bytes
from benchmarks.targets import Record, asked_percent
from statemix.extras import missing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "statemix",
    "text.parse_math": False,
}
FORMATS = ("png", "svg")
COLORS = {"forward": "#1b6ca8", "backward": "#e08214"}
WIDTH = 0.38
"""Of a bar, where the distance between block sizes is 1."""

Panel = tuple[tuple[int, int], list[Record]]


def panels(records: Sequence[Record]) -> list[Panel]:
    """The measured cases by (B, T), in the order of the records. ValueError if there are none."""
    by_shape: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        if record["bench"] == "scan" and "passes" in record:
            for row in record["cases"]:
                by_shape.setdefault((row["batch"], row["length"]), []).append(row)
    if all("failed" in row for rows in by_shape.values() for row in rows):
        raise ValueError(
            "files: got no measured scan, expected records of `statemix bench scan` in two passes"
        )
    return list(by_shape.items())


def draw_picture(records: Mapping[str, Record], out: Path) -> Path:
    """Write the picture of records by path, PNG or SVG by the ending of `out`, and nothing else.

    Errors: ValueError for another ending, for an `out` that is one of the records, and without a scan in two passes;
    ImportError says how to install matplotlib.
    """
    kind = out.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"out: got {str(out)!r}, expected a name that ends in .{' or .'.join(FORMATS)}")
    if out.resolve() in {Path(path).resolve() for path in records}:
        raise ValueError(f"out: got {str(out)!r}, which is one of the records, expected another file")
    write_bytes(out, _picture(list(records.values()), kind))
    return out


def _picture(records: Sequence[Record], kind: str) -> bytes:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(missing("matplotlib")) from None
    shown = panels(records)
    scan = next(record for record in records if "copy" in record)
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        widest = max(len(rows) for _, rows in shown)
        figure = Figure(figsize=(max(6.5, 1.2 + 0.75 * widest), 1.3 + 2.2 * len(shown)), layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for one, (shape, rows) in zip(axes, shown, strict=True):
            _draw_panel(one, shape, rows)
        figure.suptitle(
            "Speed of the scans in percent of a plain copy\n"
            f"{scan['device']}, {scan['dtype']}, copy {scan['copy']['tb_per_s']:.3g} TB/s read and written",
            fontsize=11,
        )
        _legend(figure, axes[0])
        figure.savefig(content, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _draw_panel(axes: Axes, shape: tuple[int, int], rows: list[Record]) -> None:
    top = 100.0
    for place, row in enumerate(rows):
        if "failed" in row:
            axes.annotate("failed", (place, 3), ha="center", fontsize=8, color="#b00020")
            continue
        asked = asked_percent(row)
        for side, (name, color) in enumerate(COLORS.items()):
            x, percent = place + (side - 0.5) * WIDTH, row[name]["percent_of_copy"]
            axes.bar(x, percent, WIDTH * 0.94, color=color)
            _write_percent(axes, x, percent)
            top = max(top, percent)
            if asked is not None:
                axes.plot([x - WIDTH / 2, x + WIDTH / 2], [asked[side]] * 2, color="black", linewidth=1.6)
    axes.axhline(100, color="#888888", linewidth=1, linestyle="--")
    axes.set_ylim(0, top * 1.08)
    axes.set_xlim(-0.7, len(rows) - 0.3)
    axes.set_xticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axes.set_ylabel("% of a copy")
    axes.set_title(f"B = {shape[0]}, T = {shape[1]}", loc="left", fontsize=10)


def _write_percent(axes: Axes, x: float, percent: float) -> None:
    """At the foot of a bar, where no mark of what was asked crosses it; above a bar that is too low."""
    inside = percent >= 15
    text = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    axes.annotate(
        text, (x, 2 if inside else percent + 1.5), ha="center", va="bottom", fontsize=8.5,
        color="white" if inside else "black", weight="bold" if inside else "normal",
    )  # fmt: skip


def _label(row: Record) -> str:
    kind = {"bdlru": "BD-LRU", "hlru": "H-LRU", "affine": "affine"}[row["recurrence"]]
    return f"{kind} {row['m']}\nN = {row['blocks']}"


def _legend(figure: Figure, axes: Axes) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=color, label=name) for name, color in COLORS.items()]
    handles += [
        Line2D([], [], color="black", linewidth=1.6, label="asked"),
        Line2D([], [], color="#888888", linestyle="--", label="a plain copy"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
