"""The page of figures: asked, reached, and the record each comes from, with the command that made it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from statemix.bench.files import write_text
from statemix.bench.targets import FIGURES, Figure, Record, asked_percent

NAMES = {"bdlru": "BD-LRU", "hlru": "H-LRU", "affine": "affine"}
MISSING = "not measured"


def write_page(records: Mapping[str, Record], out: Path, notes: str = "") -> Path:
    """Write the page (Markdown) from records by path. `notes` follow the tables. ValueError without records."""
    if not records:
        raise ValueError("files: got none, expected records of `statemix bench`")
    links = {path: os.path.relpath(path, out.parent) for path in records}
    picture = out.with_suffix(".png")
    lines = ["# Speed", "", *_origin(records, links), ""]
    if picture.exists():
        lines += [
            f"![Speed of the scans in percent of a plain copy, by block size and pass]({picture.name})",
            "",
        ]
    lines += [*_scans(records, links), *_figures(records, links), *_layers(records, links)]
    write_text(out, "\n".join(lines).rstrip() + "\n" + (f"\n{notes.strip()}\n" if notes.strip() else ""))
    return out


def _origin(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    yield "Medians of the samples in each record, which holds quartiles, shapes and versions too."
    yield ""
    yield "| record | command | taken on |"
    yield "|---|---|---|"
    for path, record in records.items():
        versions = record["versions"]
        place = f"{record['date'][:10]}, {record['device']}, torch {versions['torch']}, Triton {versions['triton']}"
        yield f"| [{Path(path).name}]({links[path]}) | `{record['command']}` | {place} |"


def _cell(value: float, asked: float | None, digits: int = 3) -> str:
    """A percentage, and by how many points it misses what was asked."""
    text = f"{value:.{digits}g}"
    return text if asked is None or value >= asked else f"**{text}** (missed by {asked - value:.2g})"


def _scans(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    """A table a record of scans in two passes."""
    for path, record in records.items():
        if record["bench"] != "scan" or "passes" not in record:
            continue
        copy = f"{record['copy']['tb_per_s']:.3g} TB/s read and written"
        yield f"## Scans: percent of a plain copy ({record['dtype']}, {copy})"
        yield ""
        yield f"From [{Path(path).name}]({links[path]}). Percent on the bytes that a pass must move at least."
        yield ""
        yield "| | B×T×N | forward µs | % | asked | backward µs | % | asked |"
        yield "|---|---|---|---|---|---|---|---|"
        yield from (_scan_line(row) for row in record["cases"])
        yield ""
        yield from _scan_rivals(record)


def _scan_line(row: Record) -> str:
    name = f"{NAMES[row['recurrence']]} m = {row['m']} | {row['batch']}×{row['length']}×{row['blocks']}"
    if "failed" in row:
        return f"| {name} | failed: {row['failed']} | | | | | |"
    cells = []
    for one, asked in zip(("forward", "backward"), asked_percent(row) or (None, None), strict=True):
        timed = row[one]
        bound = "" if asked is None else f"{asked:g}"
        cells += [f"{1000 * timed['ms']['median']:.4g}", _cell(timed["percent_of_copy"], asked), bound]
    return f"| {name} | {' | '.join(cells)} |"


def _scan_rivals(record: Record) -> Iterator[str]:
    yield "| rival | B×T×N, m | forward ms | forward + backward ms | × ours | |"
    yield "|---|---|---|---|---|---|"
    for name, row in record["rivals"].items():
        case = row.get("case")
        sizes = f"{case['batch']}×{case['length']}×{case['blocks']}, {case['m']}" if case else ""
        note = (
            row.get("left_out")
            or row.get("failed")
            or f"{row['description']}; {row['package']}, {row['dtype']}"
        )
        times = [_median(row, one) for one in ("forward", "both")]
        ratio = f"{row['times_ours']:.3g}" if "times_ours" in row else ""
        yield f"| {name} | {sizes} | {times[0]} | {times[1]} | {ratio} | {note} |"
    yield ""


def _median(row: Record, name: str) -> str:
    return f"{row[name]['ms']['median']:.4g}" if name in row else ""


def _figures(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    """The other figures; of several records that hold one, the last given counts."""
    yield "## The other figures"
    yield ""
    yield "| | asked | reached | record |"
    yield "|---|---|---|---|"
    for figure in FIGURES:
        found = [(path, value) for path, value in _values(figure, records) if value is not None]
        bound = f"{'at most' if figure.at_most else 'at least'} {figure.asked:g}{figure.unit}"
        if not found:
            yield f"| {figure.name} | {bound} | {MISSING} | |"
            continue
        path, value = found[-1]
        text = f"{value:.3g}{figure.unit}"
        told = text if figure.reached(value) else f"**{text}** (missed)"
        yield f"| {figure.name} | {bound} | {told} | [{Path(path).name}]({links[path]}) |"
    yield ""


def _values(figure: Figure, records: Mapping[str, Record]) -> Iterator[tuple[str, float | None]]:
    for path, record in records.items():
        if record["bench"] == figure.bench and (figure.bench != "scan" or "passes" in record):
            yield path, figure.value(record)


def _layers(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    """Every measured layer, ours and the rivals, in the order of speed."""
    for path, record in records.items():
        if record["bench"] != "layer":
            continue
        shape = f"d = {record['dim']}, B{record['batch']} T{record['length']}, {record['dtype']}"
        yield f"## Layers, preset {record['preset']} ({shape})"
        yield ""
        yield f"From [{Path(path).name}]({links[path]}); fastest first."
        yield ""
        yield "| | parameters | forward ms | forward + backward ms | the same launched | tokens/s | × ours |"
        yield "|---|---|---|---|---|---|---|"
        rows: list[tuple[str, Any]] = [(row["name"], row) for row in record["ours"]]
        rows += list(record["rivals"].items())
        for name, row in sorted(rows, key=lambda pair: -pair[1].get("tokens_per_s", 0)):
            yield _layer_line(name, row)
        yield ""


def _layer_line(name: str, row: Record) -> str:
    note = row.get("left_out") or row.get("failed")
    if note:
        return f"| {name} | {note} | | | | | |"
    ratio = f"{row['times_ours']:.3g}" if "times_ours" in row else ""
    times = " | ".join(_median(row, one) for one in ("forward", "both", "launched"))
    return f"| {name} | {row['parameters']:,} | {times} | {row['tokens_per_s']:.3g} | {ratio} |"
