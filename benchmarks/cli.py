"""`statemix bench …`: how fast the scans are, beside what PyTorch and others offer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import decode as decoding
from benchmarks import layer_rivals, layers, tables
from benchmarks import passes as two_passes
from benchmarks import rivals as scan_rivals
from benchmarks import scan as comparison
from benchmarks.cases import DEFAULT_CASES, Case, check_sizes, parse_cases, parse_shapes, parse_sizes
from benchmarks.clock import check_repeats, copy_bandwidth, resolve_device
from benchmarks.files import read_json, write_json
from benchmarks.page import make_page, write_page
from benchmarks.picture import draw_picture
from statemix.cli.console import output, progress
from statemix.cli.errors import Failure
from statemix.cli.waiting import working
from statemix.text import encoded, visible

Device = Annotated[str | None, typer.Option(help="cpu or cuda; without it, cuda where there is one.")]
Out = Annotated[
    Path | None, typer.Option(help="Record the measurement as JSON, such as benchmarks/scan.json.")
]
Repeats = Annotated[int, typer.Option(help="Samples of each; the slowest get fewer.")]
Dtype = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(two_passes.DTYPES)}; without it, bfloat16 on cuda, else float32."),
]
Rivals = Annotated[str, typer.Option(help="all, none, or names, comma-separated.")]


def command() -> str:
    """The command line, as it was given."""
    return encoded(shlex.join(["statemix", *sys.argv[1:]]))


def keep(record: dict[str, Any], out: Path | None) -> None:
    """Write the record where it is wanted, and say so."""
    if out is not None:
        write_json(out, record)
    tell(out)


def tell(out: Path | None) -> None:
    """Say where the record is."""
    if out is not None:
        output().say(f"recorded in {out}")


def resolve_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """A measured dtype by name, or the device's usual one. ValueError for an unknown name."""
    name = name or {"cuda": "bfloat16"}.get(device.type, "float32")
    two_passes.check_dtype(name)
    return two_passes.DTYPES[name]


def fail_if_any(rows: list[dict[str, Any]]) -> None:
    """The command fails if one of our own rows did; everything has been written by then."""
    failed = [row for row in rows if "failed" in row]
    if failed:
        raise Failure(f"{len(failed)} of {len(rows)} failed, the first: {failed[0]['failed']}")


def scan(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    shapes: Annotated[
        str | None,
        typer.Option(help="recurrence:m, comma-separated; in two passes also affine:m, and :N to set N."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="B, sequences.")] = None,
    length: Annotated[int | None, typer.Option(help="T, steps.")] = None,
    blocks: Annotated[int | None, typer.Option(help="N, blocks or channels.")] = None,
    sizes: Annotated[
        str | None, typer.Option(help="BxTxH, comma-separated; N is H / m; forward and backward apart.")
    ] = None,
    dtype: Dtype = None,
    rivals: Rivals = "all",
) -> None:
    """Time the scans.

    On the CPU: forward + backward, in turns with torch's associative scan and a plain loop. On a GPU, or at
    --sizes: forward and backward apart, in percent of the speed of a plain copy measured in the same run, and other
    people's scans where they are installed. Everyone is checked against float64 first. Medians, with quartiles.
    """
    place = resolve_device(device)
    check_repeats(repeats)
    given = {"batch": batch, "length": length, "blocks": blocks}
    check_sizes(**{name: size for name, size in given.items() if size is not None})
    if place.type == "cuda" or sizes is not None:
        name = str(resolve_dtype(dtype, place)).removeprefix("torch.")
        _scan_passes(_cases(shapes, sizes, given), place, name, repeats, rivals, out)
        return
    if dtype not in (None, "float32"):
        raise ValueError(f"dtype: got {dtype!r}, expected float32 on the CPU, or --sizes beside it")
    defaults = {"batch": 32, "length": 256, "blocks": 32}
    wanted = {name: defaults[name] if size is None else size for name, size in given.items()}
    _scan_comparison(parse_cases(shapes or DEFAULT_CASES, **wanted), repeats, out)


def _scan_comparison(cases: list[Case], repeats: int, out: Path | None) -> None:
    rows = []
    with working("measured", len(cases)) as work:
        work.begin(_named(cases[0]))
        for row in comparison.run(cases, repeats=repeats):
            rows.append(row)
            work.begin(_named(cases[min(len(rows), len(cases) - 1)]))
            work.end()
    record = comparison.record(rows, command=command())
    output().print(tables.comparison(record))
    keep(record, out)


def _named(case: Case) -> str:
    return f"{case.recurrence} {case.m} {tables.sizes(case._asdict())}"


def _cases(shapes: str | None, sizes: str | None, given: dict[str, int | None]) -> list[Case]:
    """The cases of a scan in two passes: at --sizes, or at --batch, --length and --blocks where one is given."""
    text = shapes or two_passes.DEFAULT_SHAPES
    if all(size is None for size in given.values()):
        if shapes is None and sizes is None:
            return two_passes.default_cases()
        return parse_shapes(text, parse_sizes(sizes or two_passes.DEFAULT_SIZES))
    if sizes is not None:
        raise ValueError(
            f"sizes: got {sizes!r} beside --batch, --length or --blocks, expected one or the other"
        )
    cases = parse_shapes(text, [(given["batch"] or 8, given["length"] or 2048, 1024)])
    return [case if given["blocks"] is None else case._replace(blocks=given["blocks"]) for case in cases]


def _scan_passes(
    cases: list[Case], device: torch.device, dtype: str, repeats: int, rivals: str, out: Path | None
) -> None:
    names = scan_rivals.choose(rivals)
    rows: list[dict[str, Any]] = []
    others: dict[str, dict[str, Any]] = {}
    copy = copy_bandwidth(device, repeats)

    def save() -> dict[str, Any]:
        """After every row: what has been measured is not lost when the command is stopped."""
        record = two_passes.record(rows, others, copy=copy, dtype=dtype, command=command(), device=device)
        if out is not None:
            write_json(out, record)
        return record

    with working("measured", len(cases)) as work:
        for row in two_passes.run(cases, dtype=dtype, device=device, repeats=repeats, copy=copy):
            rows.append(row)
            save()
            work.done = len(rows)  # each row is a line of its own
            progress().say(f"{len(rows)} of {len(cases)}: {tables.one_scan(row)}")
    for name, row in scan_rivals.run(names, rows, device, repeats):
        others[name] = row
        save()
        progress().say(f"{name}: {tables.outcome(row)}")
    record = save()
    for table in tables.passes(record):
        output().print(table)
    tell(out)
    fail_if_any(rows)


def layer(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    preset: Annotated[
        str,
        typer.Option(
            help="layer: m = 4 as wide as the model; paper: every m and the rivals at 33 M parameters."
        ),
    ] = "layer",
    dim: Annotated[int, typer.Option(help="Width of the model.")] = 1024,
    batch: Annotated[int, typer.Option(help="B, sequences.")] = 8,
    length: Annotated[int, typer.Option(help="T, steps.")] = 2048,
    parameters: Annotated[
        int | None, typer.Option(help="Parameters of each layer, instead of the preset's.")
    ] = None,
    dtype: Dtype = None,
    rivals: Rivals = "all",
) -> None:
    """Time whole layers, forward and backward: ours, its matrix products alone, and other people's layers.

    Rivals have as many parameters as ours, to 5 %; a rival that cannot be sized is compared with one of ours that is.
    """
    place = resolve_device(device)
    check_repeats(repeats)
    check_sizes(
        dim=dim, batch=batch, length=length, **({} if parameters is None else {"parameters": parameters})
    )
    if preset not in layers.PRESETS:
        raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(layers.PRESETS)}")
    names = layer_rivals.choose(rivals)
    wanted = layers.PRESETS[preset]
    wanted = wanted if parameters is None else wanted._replace(parameters=parameters)
    setting = layers.Setting(dim, batch, length, resolve_dtype(dtype, place), place, repeats)
    ours: list[dict[str, Any]] = []
    others: dict[str, dict[str, Any]] = {}

    def save() -> dict[str, Any]:
        record = layers.record(ours, others, preset=preset, setting=setting, command=command())
        if out is not None:
            write_json(out, record)
        return record

    for row in layers.run_ours(wanted, setting):
        ours.append(row)
        save()
        progress().say(f"{row['name']}: {tables.outcome(row)}")
    for name, row in layers.run_rivals(wanted, names, ours, setting):
        others[name] = row
        save()
        progress().say(f"{name}: {tables.outcome(row)}")
    for table in tables.layers(save()):
        output().print(table)
    tell(out)
    fail_if_any(ours)


def decode(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    measured: Annotated[
        str, typer.Option("--layers", help="name:m, comma-separated.")
    ] = decoding.DEFAULT_LAYERS,
    dim: Annotated[int, typer.Option(help="Width of the model.")] = 1024,
    batch: Annotated[int, typer.Option(help="B, sequences.")] = 128,
    positions: Annotated[str, typer.Option(help="Where a layer is timed.")] = decoding.DEFAULT_POSITIONS,
    run_on: Annotated[
        str, typer.Option(help=f"Layers that run on to every position; the others stop at {decoding.NEAR}.")
    ] = "bdlru:4",
    dtype: Dtype = None,
) -> None:
    """Time one token at a time: microseconds of a layer's step, in a stack of layers and at far positions.

    On a GPU the steps are replayed as a CUDA graph. The stack is deep enough that its weights come from memory.
    """
    place = resolve_device(device)
    check_repeats(repeats)
    check_sizes(dim=dim, batch=batch)
    setting = decoding.Setting(
        dim, batch, resolve_dtype(dtype, place), place, repeats,
        decoding.parse_positions(positions), decoding.parse_layers(run_on),
    )  # fmt: skip
    rows = []
    for row in decoding.run(decoding.parse_layers(measured), setting):
        rows.append(row)
        if out is not None:
            write_json(out, decoding.record(rows, command=command(), device=place))
        progress().say(f"{row['layer']} {row['m']}: {tables.outcome(row)}")
    output().print(tables.decode(decoding.record(rows, command=command(), device=place)))
    tell(out)
    fail_if_any(rows)


def picture(
    files: Annotated[list[Path], typer.Argument(help="Records of bench scan in two passes.")],
    out: Annotated[Path, typer.Option(help="The picture, PNG or SVG; nothing else is written.")],
) -> None:
    """Draw how near the scans come to the speed of a plain copy, beside what was asked for."""
    records = {str(path): read_json(path) for path in files}
    output().say(f"wrote {draw_picture(records, out)}")


def report(
    files: Annotated[list[Path], typer.Argument(help="Records of bench scan, layer, decode and train.")],
    out: Annotated[Path | None, typer.Option(help="The page, Markdown; without it, it is printed.")] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown that follows the tables.")] = None,
) -> None:
    """Write tables of every recorded time, with the command and its record, beside what was asked for."""
    more = "" if notes is None else notes.read_text(encoding="utf-8")
    records = {str(path): read_json(path) for path in files}
    if out is None:
        output().print(visible(make_page(records, Path(), notes=more).rstrip(), keep="\n"), soft_wrap=True)
    else:
        output().say(f"wrote {write_page(records, out, more)}")
