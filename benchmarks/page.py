"""The page of measurements: what was timed, each record with the command that made it, and what was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.files import write_text
from benchmarks.page_summary import summary
from benchmarks.page_tables import KINDS, Kind, kind_of, plain
from benchmarks.targets import FIGURES, Figure, Record

MISSING = "not measured"

VERSIONS = {"torch": "torch", "triton": "Triton", "numba": "Numba"}
"""The versions that are shown, and how the packages are written."""

HEADER = {"command": str, "date": str, "device": str, "versions": dict}
"""What every record begins with, besides the bench."""


def write_page(records: Mapping[str, Record], out: Path, notes: str = "") -> Path:
    """Write the page (Markdown) from records by path, and nothing else. `notes` follow the tables.

    Errors: ValueError without records, for one that is no record of a bench, and for an `out` that is one of them.
    """
    if out.resolve() in {Path(path).resolve() for path in records}:
        raise ValueError(f"out: got {str(out)!r}, which is one of the records, expected another file")
    write_text(out, make_page(records, out.parent, out.with_suffix(".png"), notes))
    return out


def make_page(
    records: Mapping[str, Record], folder: Path, picture: Path | None = None, notes: str = ""
) -> str:
    """The page as text, with links as from `folder`, and the picture if that exists. Errors as `write_page`."""
    if not records:
        raise ValueError("files: got none, expected records of `statemix bench`")
    links = {}
    for path, record in records.items():
        _check(path, record)
        links[path] = f"[{plain(Path(path).name)}]({os.path.relpath(path, folder)})"
    tables = {kind.entry: list(_tables(kind, records, links)) for kind in KINDS}
    lines = ["# Speed", "", summary(list(records.values())), "", *_origin(records, links), ""]
    if picture is not None and picture.exists():
        lines += [
            f"![Speed of the scans in percent of a plain copy, by block size and pass]({picture.name})",
            "",
        ]
    lines += [*tables.pop("passes"), *_figures(records, links)]
    lines += [line for table in tables.values() for line in table]
    return "\n".join(lines).rstrip() + "\n" + (f"\n{notes.strip()}\n" if notes.strip() else "")


def _check(path: str, record: Record) -> None:
    """ValueError for what is no record that the page shows."""
    missing = next((key for key, kind in HEADER.items() if not isinstance(record.get(key), kind)), None)
    if kind_of(record) is None or missing:
        got = f"one without {missing!r}" if missing else f"one of bench {record['bench']!r}"
        raise ValueError(
            f"{path}: got {got}, expected a record of `statemix bench scan`, layer, decode or train"
        )


def _tables(kind: Kind, records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    """The table of every record of a kind. ValueError naming a record that lacks something."""
    for path, record in records.items():
        if kind_of(record) is kind:
            try:
                yield from list(kind.table(record, links[path]))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise ValueError(
                    f"{path}: is not a whole record of `statemix bench {kind.bench}`: {error!r}"
                ) from None


def _origin(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    yield "Medians of the samples in each record, which holds quartiles, shapes and versions too."
    yield ""
    yield "| record | command | taken on |"
    yield "|---|---|---|"
    for path, record in records.items():
        versions = record["versions"]
        compiler = "triton" if versions.get("triton") else "numba"
        told = [f"{VERSIONS[key]} {plain(versions[key])}" for key in ("torch", compiler) if versions.get(key)]
        place = ", ".join([record["date"][:10], plain(record["device"]), *told])
        yield f"| {links[path]} | `{plain(record['command'])}` | {place} |"


def _figures(records: Mapping[str, Record], links: Mapping[str, str]) -> Iterator[str]:
    """The other figures, where a record may hold one; of several that do, the last given counts."""
    if all(value is None for figure in FIGURES for _, value in _values(figure, records)):
        return
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
        yield f"| {figure.name} | {bound} | {told} | {links[path]} |"
    yield ""


def _values(figure: Figure, records: Mapping[str, Record]) -> Iterator[tuple[str, float | None]]:
    for path, record in records.items():
        if record["bench"] == figure.bench and (figure.bench != "scan" or "passes" in record):
            yield path, figure.value(record)
