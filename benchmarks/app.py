"""The commands of `python -m benchmarks`."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import decode as decoding
from benchmarks import layer as layers
from benchmarks import layer_baselines, measure, report, scan_baselines, scan_cpu, scan_passes
from benchmarks import picture as pictures
from benchmarks import train as training
from benchmarks.measure import attempt, make_setup
from benchmarks.packages import choose
from benchmarks.records import Record, read_record, write_record
from benchmarks.shapes import ScanShape, check_positive, parse_numbers, parse_shapes, parse_sizes
from statemix.cli import Commands, Program
from statemix.text import encoded, visible

NAME = "python -m benchmarks"

Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda if available.")]
Out = Annotated[Path | None, typer.Option(help="Record the measurement as JSON.")]
Repeats = Annotated[int, typer.Option(help="Samples of each; the slowest get fewer.")]
Dtype = Annotated[
    str | None, typer.Option(help=f"{', '.join(measure.DTYPES)}; default: bfloat16 on cuda, else float32.")
]
Baselines = Annotated[str, typer.Option(help="all, none, or names, comma-separated.")]


def _command() -> str:
    """The command line as it was given."""
    return encoded(shlex.join([*NAME.split(), *sys.argv[1:]]))


def _show(record: Record) -> None:
    """The tables of a record, on standard output."""
    width = Console().width if sys.stdout.isatty() else 10_000
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    for title, note, frame in report.make_tables({"": record}):
        console.print(f"{title}. {note}")
        table = RichTable(*map(visible, frame.columns), box=SIMPLE_HEAD)
        for row in frame.itertuples(index=False):
            table.add_row(*map(visible, row))
        console.print(table)
    print(console.file.getvalue().rstrip())  # type: ignore[attr-defined]


def _carry_out(lines: Iterator[str], make_record: Callable[[], Record], out: Path | None) -> None:
    """Measure, one thing a line; the record is written after each, so that a stopped command loses nothing.

    Fails at the end if one of statemix's own rows did.
    """
    for line in lines:
        if out is not None:
            write_record(out, make_record())
        print(visible(line), file=sys.stderr, flush=True)
    record = make_record()
    _show(record)
    if out is not None:
        print(f"recorded in {visible(out)}")
    rows = [row for key in ("cases", "layers", "modes", "packed") for row in record.get(key, [])]
    failed = [row["failed"] for row in rows if "failed" in row]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(rows)} failed, the first: {failed[0]}")


def _line(name: object, row: Record) -> str:
    """What was measured, in one line."""
    note = row.get("skipped") or row.get("failed")
    times = {key: value for key, value in row.items() if isinstance(value, dict) and "ms" in value}
    shown = [f"{key} {report.quartiles(timed['ms'])} ms" for key, timed in times.items()]
    units = {"us": "µs", "ms": "ms", "ms_per_step": "ms"}
    shown += [f"{report.quartiles(row[key])} {unit}" for key, unit in units.items() if key in row]
    return f"{name}: {note or ', '.join(shown)}"


def scan(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    shapes: Annotated[
        str | None, typer.Option(help="recurrence:m or recurrence:m:N, comma-separated.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="B, sequences.")] = None,
    length: Annotated[int | None, typer.Option(help="T, steps.")] = None,
    blocks: Annotated[int | None, typer.Option(help="N, blocks or channels.")] = None,
    sizes: Annotated[
        str | None, typer.Option(help="BxTxH, comma-separated; N is H / m; forward and backward apart.")
    ] = None,
    dtype: Dtype = None,
    baselines: Baselines = "all",
) -> None:
    """Time the scans, after a check against float64.

    On the CPU: forward + backward, beside torch's associative scan and a plain loop. On a GPU, or with --sizes: forward
    and backward apart, in percent of the speed of a plain copy, and scans of other packages where they are installed.
    Medians with quartiles.
    """
    setup = make_setup(device, dtype, repeats)
    check_positive(batch=batch, length=length, blocks=blocks)
    rows: list[Record] = []
    baselines_rows: dict[str, Record] = {}
    if setup.device.type == "cpu" and sizes is None:
        if setup.dtype != "float32":
            raise ValueError(f"dtype: got {dtype!r}, expected float32 on the CPU, or --sizes beside it")
        cases = parse_shapes(
            shapes or scan_cpu.DEFAULT_SHAPES, [(batch or 32, length or 256, 0)], blocks or 32
        )
        names, time_one = [], partial(scan_cpu.measure, setup=setup)
        make_record = partial(scan_cpu.make_record, rows, command=_command())
    else:
        cases = _pass_shapes(shapes, sizes, batch, length, blocks)
        names = choose(baselines, scan_baselines.BASELINES)
        copy = measure.copy_bandwidth(setup)
        time_one = partial(scan_passes.measure, setup=setup, copy=copy)
        make_record = partial(
            scan_passes.make_record, rows, baselines_rows, setup=setup, copy=copy, command=_command()
        )

    def lines() -> Iterator[str]:
        for shape in cases:
            rows.append(attempt(shape._asdict(), setup.device, partial(time_one, shape)))
            yield f"{len(rows)} of {len(cases)}: {_line(shape, rows[-1].get('results', rows[-1]))}"
        for name in names:
            baselines_rows[name] = scan_baselines.run_baseline(name, rows, setup)
            yield _line(name, baselines_rows[name])

    _carry_out(lines(), make_record, out)


def _pass_shapes(
    shapes: str | None, sizes: str | None, batch: int | None, length: int | None, blocks: int | None
) -> list[ScanShape]:
    """The shapes of a scan in two passes: at --sizes, or at --batch, --length and --blocks where one is given."""
    text = shapes or scan_passes.DEFAULT_SHAPES
    if batch is length is blocks is None:
        if shapes is None and sizes is None:
            return scan_passes.default_shapes()
        return parse_shapes(text, parse_sizes(sizes or scan_passes.DEFAULT_SIZES))
    if sizes is not None:
        raise ValueError(
            f"sizes: got {sizes!r} beside --batch, --length or --blocks, expected one or the other"
        )
    return parse_shapes(text, [(batch or 8, length or 2048, 1024)], blocks)


def layer(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    preset: Annotated[
        str,
        typer.Option(
            help="layer: m = 4 as wide as the model; paper: every m and the baselines at 33 M parameters."
        ),
    ] = "layer",
    dim: Annotated[int, typer.Option(help="Width of the model.")] = 1024,
    batch: Annotated[int, typer.Option(help="B, sequences.")] = 8,
    length: Annotated[int, typer.Option(help="T, steps.")] = 2048,
    parameters: Annotated[
        int | None, typer.Option(help="Parameters of each layer, instead of the preset's.")
    ] = None,
    dtype: Dtype = None,
    baselines: Baselines = "all",
) -> None:
    """Time whole layers, forward and backward: BD-LRU, its matrix products alone, and layers of other packages.

    Baselines have as many parameters as BD-LRU, to 5 %; one that cannot be sized is compared with a BD-LRU that is.
    """
    setup = make_setup(device, dtype, repeats, layers.BUDGET_MS)
    check_positive(dim=dim, batch=batch, length=length, parameters=parameters)
    if preset not in layers.PRESETS:
        raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(layers.PRESETS)}")
    names = choose(baselines, layer_baselines.BASELINES)
    chosen, sizes = layers.PRESETS[preset], layers.Sizes(dim, batch, length)
    wanted = parameters or chosen.parameters
    rows: list[Record] = []
    baseline_rows: dict[str, Record] = {}

    def lines() -> Iterator[str]:
        for m in chosen.block_sizes:
            facts = {"name": f"BDLRU m={m}", "m": m}
            rows.append(attempt(facts, setup.device, partial(layers.measure, m, wanted, sizes, setup)))
            yield _line(facts["name"], rows[-1])
        compared = next((row for row in rows if row["m"] == chosen.compared and "both" in row), None)
        for name in (name for name in names if name in chosen.baselines):
            baseline_rows[name] = layers.run_baseline(name, compared, rows, sizes, setup)
            yield _line(name, baseline_rows[name])

    facts: Any = {"preset": preset, "sizes": sizes, "setup": setup, "command": _command()}
    _carry_out(lines(), partial(layers.make_record, rows, baseline_rows, **facts), out)


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
    setup = make_setup(device, dtype, repeats)
    check_positive(dim=dim, batch=batch)
    sizes = decoding.Sizes(dim, batch, decoding.parse_positions(positions), decoding.parse_layers(run_on))
    chosen, rows = decoding.parse_layers(measured), list[Record]()

    def lines() -> Iterator[str]:
        for one in chosen:
            facts = {"layer": one.name, "m": one.m}
            rows.append(attempt(facts, setup.device, partial(decoding.measure, one, sizes, setup)))
            yield _line(f"{one.name}:{one.m}", rows[-1])

    _carry_out(lines(), lambda: decoding.make_record(rows, setup=setup, command=_command()), out)


def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="SETTING", help="key=value settings over the preset's; T is task.length."),
    ] = None,
    preset: Annotated[str, typer.Option(help="The preset of the measured run.")] = "mad-bdlru",
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 5,
    steps: Annotated[int, typer.Option(help="Steps of one sample.")] = 200,
    packed: Annotated[str, typer.Option(help="Numbers of concurrent runs, comma-separated.")] = "1,2,4,8,16",
) -> None:
    """Time training steps: launched one by one, captured as a CUDA graph, compiled and captured, and concurrent runs.

    Without settings: two BD-LRU layers of 64 blocks of 4 and two SwiGLUs, width 128, batch 128, T = 256.
    """
    where = make_setup(device, None, repeats).device
    check_positive(steps=steps)
    chosen = tuple(settings or ("task.name=selective_copying",))
    setting = training.Setting(chosen, preset, where, steps, repeats)
    counts = parse_numbers(packed) if packed.strip() else []
    if packed.strip() and not counts:
        raise ValueError(f"packed: got {packed!r}, expected whole numbers such as 1,2,4")
    training.make_config(setting, 0, "off")  # an error in it is raised at once
    rows: dict[str, list[Record]] = {}

    def lines() -> Iterator[str]:
        for kind, row in training.run(setting, counts):
            rows.setdefault(kind, []).append(row)
            yield _line(f"{row['concurrent']} concurrent" if kind == "packed" else row["mode"], row)

    _carry_out(lines(), lambda: training.make_record(rows, setting=setting, command=_command()), out)


def picture(
    files: Annotated[list[Path], typer.Argument(help="GPU records of scan.")],
    out: Annotated[Path, typer.Option(help="The picture, PNG or SVG; nothing else is written.")],
) -> None:
    """Draw the scans' speed in percent of a plain copy."""
    records = {str(path): read_record(path) for path in files}
    print(f"wrote {visible(pictures.draw_picture(records, out))}")


def report_records(
    files: Annotated[list[Path], typer.Argument(help="Records, JSON.")],
    out: Annotated[Path | None, typer.Option(help="The page, Markdown; without it, it is printed.")] = None,
) -> None:
    """Write the tables of recorded measurements: one per kind, each record with its command and hardware."""
    records = {str(path): read_record(path) for path in files}
    if out is None:
        print(report.make_page(records, Path()), end="")
    else:
        print(f"wrote {visible(report.write_page(records, out))}")


COMMANDS: Commands = {
    "scan": (scan, f"{NAME} scan --shapes hlru:2 --sizes 2x64x8 --out scan.json"),
    "layer": (layer, f"{NAME} layer --dim 32 --batch 2 --length 9 --out layer.json"),
    "decode": (decode, f"{NAME} decode --layers hlru:4 --positions 1,99 --out d.json"),
    "train": (train, f"{NAME} train task.length=4 --steps 1 --packed 2"),
    "picture": (picture, f"{NAME} picture scan.json --out speed.png"),
    "report": (report_records, f"{NAME} report scan.json layer.json d.json --out speed.md"),
}

PROGRAM = Program(
    name=NAME,
    help="Measure speed.",
    commands=COMMANDS,
    example=f"{NAME} scan --shapes hlru:4 --repeats 3 --length 64",
)
