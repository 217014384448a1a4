"""`statemix-research corpus` and `carry`: text for language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from statemix.cli import Column, Failure, Table, output, progress

FOLDER: Any = typer.Argument(metavar="FOLDER", help="Where the text goes; best outside a repository.")
ONLY: Any = typer.Option("--only", metavar="SOURCE", help="One of the sources; may be repeated.")
COUNTS = ("documents", "bytes")


def corpus(
    folder: Annotated[Path, FOLDER],
    only: Annotated[list[str] | None, ONLY] = None,
) -> None:
    """Fetch about 200 MB of English text from Debian and Python packages, as JSON lines; nothing is installed.

    Needs apt-get with a Debian mirror, dpkg-deb and pip. Interrupted, the same command goes on. Exit code 1 when a
    source is missing; the others are kept.
    """
    from statemix_research.language.corpus import PAGE, TEXT, build_corpus
    from statemix_research.language.sources import SOURCES

    known = [source.name for source in SOURCES]
    if unknown := sorted(set(only or []) - set(known)):
        raise ValueError(f"--only: got {unknown[0]!r}, expected one of {', '.join(known)}")
    chosen = [source for source in SOURCES if not only or source.name in only]
    found = build_corpus(folder, chosen, lambda line: progress().say(line, style="dim"))
    output().print(_sources(found.entries))
    output().say(f"text: {folder / TEXT}, described in {folder / PAGE}")
    if found.failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.failures.items())
        raise Failure(f"{len(found.failures)} sources are missing, the others are kept: {reasons}")


def _sources(entries: dict[str, dict[str, Any]]) -> Table:
    names = ("source", "package")
    table = Table(
        "",
        [*map(Column, names), Column("licence", prose=True), *(Column(name, number=True) for name in COUNTS)],
    )
    for name, one in entries.items():
        counts = [f"{one[key]:,}" for key in COUNTS]
        table.add_row(name, f"{one['package']} {one['package_version']}", one["licence"], *counts)
    table.add_row("all", "", "", *(f"{sum(one[key] for one in entries.values()):,}" for key in COUNTS))
    return table


def carry(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="The folder of a pack.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where it goes: a new or an empty folder.")
    ],
) -> None:
    """Compress a pack for a machine without a network; the unpack.py beside it restores the same bytes there."""
    from statemix_research.language.carry import SCRIPT, pack_up

    if not (pack / "meta.json").is_file():
        raise ValueError(f"PACK: {pack} is not a pack, it has no meta.json")
    size = pack_up(pack, folder)
    output().say(f"{folder}: {size:,} bytes; to restore the pack there: python {SCRIPT} PACK")
