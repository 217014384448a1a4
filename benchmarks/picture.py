"""The picture of the scans' speed: percent of a plain copy, by block size and pass."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.records import Record
from benchmarks.report import check_out, scan_name
from statemix.report import new_figure, render
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png")
COLORS = {"forward": "#1b6ca8", "backward": "#e08214"}


def panels(records: Mapping[str, Record]) -> dict[tuple[int, int], pd.DataFrame]:
    """Percent of a copy by pass, of the measured shapes by (B, T). ValueError if there are none."""
    rows = [
        {
            "shape": (row["batch"], row["length"]),
            "scan": f"{scan_name(row, short=True)}\nN = {row['blocks']}",
            **{name: row[name]["percent_of_copy"] if name in row else 0.0 for name in COLORS},
        }
        for record in records.values()
        if record.get("bench") == "scan" and "passes" in record
        for row in record["cases"]
    ]
    if not any(row["forward"] for row in rows):
        raise ValueError("files: got no measured scan, expected GPU records of `python -m benchmarks scan`")
    groups = pd.DataFrame(rows).groupby("shape", sort=False)
    return {(int(b), int(t)): group.set_index("scan")[list(COLORS)] for (b, t), group in groups}


def draw_picture(records: Mapping[str, Record], out: Path) -> Path:
    """Write the picture of records by path, PNG or SVG by the ending of `out`, and nothing else.

    Raises ValueError for another ending, for an `out` that is one of the records, and without a scan in two passes;
    ImportError says how to install matplotlib.
    """
    kind = out.suffix.lower()
    if kind not in FORMATS:
        raise ValueError(f"out: got {str(out)!r}, expected a name that ends in {' or '.join(FORMATS[::-1])}")
    check_out(records, out)
    content = render(partial(_figure, panels(records), records))[FORMATS.index(kind)]
    replace_file(out, lambda path: path.write_bytes(content))
    return out


def _figure(shown: Mapping[tuple[int, int], pd.DataFrame], records: Mapping[str, Record]) -> Figure:
    scan = next(record for record in records.values() if "copy" in record)
    widest = max(map(len, shown.values()))
    figure = new_figure(max(6.5, 1.2 + 0.75 * widest), 1.3 + 2.2 * len(shown))
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for one, (shape, frame) in zip(axes, shown.items(), strict=True):
        _draw_panel(one, shape, frame)
    copy = f"{scan['copy']['tb_per_s']:.3g} TB/s read and written"
    figure.suptitle(f"Scan speed in percent of a plain copy\n{scan['device']}, {scan['dtype']}, copy {copy}")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_panel(axes: Axes, shape: tuple[int, int], frame: pd.DataFrame) -> None:
    frame.plot.bar(
        ax=axes, color=COLORS, width=0.76, legend=False, rot=0, xlabel="", ylabel="% of a copy", fontsize=8
    )
    for bars in axes.containers:
        labels = [f"{bar.get_height():.0f}" if bar.get_height() else "failed" for bar in bars]  # type: ignore[attr-defined]
        axes.bar_label(bars, labels, fontsize=8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.grid(axis="x", visible=False)
    axes.axhline(100, color="#888888", linewidth=1, linestyle="--", label="plain copy")
    axes.set_title(f"B = {shape[0]}, T = {shape[1]}", loc="left", fontsize=10)
