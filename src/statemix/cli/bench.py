"""`statemix bench scan`: how fast the scans are, beside what PyTorch offers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from statemix.bench import scan as bench
from statemix.bench.contestants import CONTESTANTS
from statemix.bench.files import write_json
from statemix.cli.console import output, progress


def scan(
    device: Annotated[str, typer.Option(help="cpu (the only one with compiled kernels).")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Record the measurement as JSON, such as benchmarks/scan_cpu.json.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Timed runs of each; the slowest get fewer.")] = 15,
    shapes: Annotated[str, typer.Option(help="recurrence:m, comma-separated.")] = bench.DEFAULT_CASES,
    batch: Annotated[int, typer.Option(help="B, sequences.")] = 32,
    length: Annotated[int, typer.Option(help="T, steps.")] = 256,
    blocks: Annotated[int, typer.Option(help="N, blocks or channels.")] = 32,
) -> None:
    """Time the scans forward + backward, in turns with torch's associative scan and a plain loop.

    Every contestant is checked against float64 first. Times are milliseconds: the median and, below, the quartiles.
    """
    cases = bench.parse_cases(shapes, batch=batch, length=length, blocks=blocks)
    rows = []
    with progress().status("measuring") as status:
        for row in bench.run(cases, device=device, repeats=repeats):
            rows.append(row)
            status.update(f"measured {len(rows)} of {len(cases)}")
    command = shlex.join(["statemix", *sys.argv[1:]])
    console, record = output(), bench.record(rows, command=command, device=device)
    console.print(table(rows, record))
    if out is not None:
        write_json(out, record)
        console.print(f"recorded in {out}", soft_wrap=True)


def table(rows: list[dict[str, Any]], record: dict[str, Any]) -> Table:
    """One line a case; each rival also as a multiple of the first contestant's median."""
    where = f"{record['device']}, {record['threads']} threads, torch {record['versions']['torch']}"
    shown = Table(title=f"forward + backward, ms; {where}", title_justify="left")
    for column in ("recurrence", "m", "B×T×N", *CONTESTANTS):
        shown.add_column(column, justify="right")
    for row in rows:
        ours = row["results"][next(iter(CONTESTANTS))]["ms"]["median"]
        sizes = f"{row['batch']}×{row['length']}×{row['blocks']}"
        cells = [_cell(row["results"][name]["ms"], ours) for name in CONTESTANTS]
        shown.add_row(row["recurrence"], str(row["m"]), sizes, *cells)
    return shown


def _cell(ms: dict[str, float], ours: float) -> str:
    ratio = "" if ms["median"] == ours else f" [bold]{ms['median'] / ours:.3g}×[/]"
    return f"{ms['median']:.3g}{ratio}\n[dim]{ms['lower_quartile']:.3g}-{ms['upper_quartile']:.3g}[/]"
