"""The commands of `python -m benchmarks`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import decode as decoding
from benchmarks import host as hosts
from benchmarks import layer as layers
from benchmarks import layer_baselines, measure, report, scan_baselines, scan_cpu, scan_passes
from benchmarks import picture as pictures
from benchmarks import train as training
from benchmarks.measure import attempt, choose, make_setup
from benchmarks.records import NAME, Record, read_record, write_record
from benchmarks.shapes import ScanShape, check_positive, parse_named, parse_numbers, parse_shapes, parse_sizes
from statemix.cli import Commands, Program
from statemix.text import visible

Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda if available.")]
Out = Annotated[Path | None, typer.Option(help="Record the measurement as JSON.")]
Repeats = Annotated[int, typer.Option(help="Samples of each; the slowest get fewer.")]
Dtype = Annotated[
    str | None, typer.Option(help=f"{', '.join(measure.DTYPES)}; default: bfloat16 on cuda, else float32.")
]
Dim = Annotated[int, typer.Option(help="Width of the model.")]
Batch = Annotated[int, typer.Option(help="B, sequences.")]
Baselines = Annotated[str, typer.Option(help="all, none, or names, comma-separated.")]


def _carry_out(lines: Iterator[str], record: Record, out: Path | None) -> None:
    """Measure, one thing a line; the record is written after each, so that a stopped command loses nothing.

    Fails at the end if one of statemix's own rows did.
    """
    for line in lines:
        if out is not None:
            write_record(out, record)
        print(visible(line), file=sys.stderr, flush=True)
    for title, note, frame in report.make_tables({"": record}):
        print(f"{title}. {note}\n\n{frame.to_string(index=False)}\n")
    if out is not None:
        print(f"recorded in {visible(out)}")
    rows = [row for key in report.ROWS for row in record.get(key, [])]
    failed = [row["failed"] for row in rows if "failed" in row]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(rows)} failed, the first: {failed[0]}")


def _line(name: object, row: Record) -> str:
    """What was measured, in one line."""
    times = {key: value["ms"] for key, value in row.items() if isinstance(value, dict) and "ms" in value}
    shown = [f"{key} {report.quartiles(ms)} ms" for key, ms in times.items()]
    units = {"us": "µs", "ms": "ms", "ms_per_step": "ms"}
    shown += [f"{report.quartiles(row[key])} {unit}" for key, unit in units.items() if key in row]
    return f"{name}: {report.reason(row) or ', '.join(shown)}"


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
    hard: Annotated[
        bool, typer.Option("--hard", help="Beside soft rows hard ones; on the CPU with --sizes.")
    ] = False,
) -> None:
    """Time the scans, after a check against float64.

    On the CPU: forward + backward, beside torch's associative scan and a plain loop. On a GPU, or with --sizes: forward
    and backward apart, in percent of the speed of a plain copy, and scans of other packages where they are installed.
    Medians with quartiles.
    """
    setup = make_setup(device, dtype, repeats)
    check_positive(batch=batch, length=length, blocks=blocks)
    if setup.device.type == "cpu" and sizes is None:
        if hard:
            raise ValueError("hard: got --hard on the CPU alone, expected --sizes beside it")
        if setup.dtype != "float32":
            raise ValueError(f"dtype: got {dtype!r}, expected float32 on the CPU, or --sizes beside it")
        size = (batch or 32, length or 256, 0)
        cases, names = parse_shapes(shapes or scan_cpu.DEFAULT_SHAPES, [size], blocks or 32), []
        record, time_one = scan_cpu.new_record(), partial(scan_cpu.measure, setup=setup)
    else:
        cases = _pass_shapes(shapes, sizes, batch, length, blocks)
        cases = scan_passes.beside_hard(cases) if hard else cases
        names = choose(baselines, scan_baselines.BASELINES)
        copy = measure.copy_bandwidth(setup)
        record = scan_passes.new_record(setup, copy)
        time_one = partial(scan_passes.measure, setup=setup, copy=copy)
    rows = record["cases"]

    def lines() -> Iterator[str]:
        for shape in cases:
            rows.append(attempt(shape._asdict(), setup.device, partial(time_one, shape)))
            yield f"{len(rows)} of {len(cases)}: {_line(shape, rows[-1].get('results', rows[-1]))}"
        for name in names:
            record["baselines"][name] = row = scan_baselines.run_baseline(name, rows, setup)
            yield _line(name, row)

    _carry_out(lines(), record, out)


def _pass_shapes(
    shapes: str | None, sizes: str | None, batch: int | None, length: int | None, blocks: int | None
) -> list[ScanShape]:
    """The shapes of a scan in two passes: at --sizes, or at --batch, --length and --blocks where one is given."""
    if (batch, length, blocks) != (None, None, None):
        if sizes is not None:
            raise ValueError(
                f"sizes: got {sizes!r} beside --batch, --length or --blocks, expected one or the other"
            )
        chosen = [(batch or 8, length or 2048, 1024)]
    elif shapes is sizes is None:
        return scan_passes.default_shapes()
    else:
        chosen = parse_sizes(sizes or scan_passes.DEFAULT_SIZES)
    return parse_shapes(shapes or scan_passes.DEFAULT_SHAPES, chosen, blocks)


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
    dim: Dim = 1024,
    batch: Batch = 8,
    length: Annotated[int, typer.Option(help="T, steps.")] = 2048,
    parameters: Annotated[
        int | None, typer.Option(help="Parameters of each layer, instead of the preset's.")
    ] = None,
    dtype: Dtype = None,
    baselines: Baselines = "all",
    hard: Annotated[bool, typer.Option("--hard", help="Beside soft rows hard ones.")] = False,
) -> None:
    """Time whole layers, forward and backward: BD-LRU, its matrix products alone, and layers of other packages.

    Baselines have as many parameters as BD-LRU, to 5 %; one that cannot be sized is compared with a BD-LRU that is.
    """
    setup = make_setup(device, dtype, repeats)
    check_positive(dim=dim, batch=batch, length=length, parameters=parameters)
    if preset not in layers.PRESETS:
        raise ValueError(f"preset: got {preset!r}, expected one of {', '.join(layers.PRESETS)}")
    names = choose(baselines, layer_baselines.BASELINES)
    chosen, sizes = layers.PRESETS[preset], layers.Sizes(dim, batch, length)
    wanted = parameters or chosen.parameters
    record = layers.new_record(preset, sizes, setup)
    rows = record["layers"]

    def lines() -> Iterator[str]:
        for m, rows_are_hard in itertools.product(chosen.block_sizes, (False, True)[: 1 + hard]):
            facts = {"name": layers.name_of(m, rows_are_hard), "m": m, "hard": rows_are_hard}
            measure = partial(layers.measure, m, wanted, sizes, setup, hard=rows_are_hard)
            rows.append(attempt(facts, setup.device, measure))
            yield _line(facts["name"], rows[-1])
        soft = [row for row in rows if not row["hard"] and "both" in row]
        compared = next((row for row in soft if row["m"] == layers.COMPARED), None)
        for name in (name for name in names if name in chosen.baselines):
            record["baselines"][name] = row = layers.run_baseline(name, compared, rows, sizes, setup)
            yield _line(name, row)

    _carry_out(lines(), record, out)


def decode(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    measured: Annotated[
        str, typer.Option("--layers", help="name:m, comma-separated.")
    ] = decoding.DEFAULT_LAYERS,
    dim: Dim = 1024,
    batch: Batch = 128,
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
    sizes = decoding.Sizes(
        dim, batch, sorted(set(parse_numbers("positions", positions))), decoding.parse_layers(run_on)
    )
    chosen, record = decoding.parse_layers(measured), decoding.new_record(setup)

    def lines() -> Iterator[str]:
        for one in chosen:
            facts = {"layer": one.name, "m": one.m}
            row = attempt(facts, setup.device, partial(decoding.measure, one, sizes, setup))
            record["layers"].append(row)
            yield _line(f"{one.name}:{one.m}", row)

    _carry_out(lines(), record, out)


def host(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 15,
    measured: Annotated[
        str, typer.Option("--layers", help="bdlru:m or hlru:m, comma-separated.")
    ] = hosts.DEFAULT_MODELS,
    dtype: Dtype = None,
) -> None:
    """Time the host: microseconds of scans, layers and steps too small to keep a device busy, launched one by one."""
    setup = make_setup(device, dtype, repeats)
    record = hosts.new_record(setup)

    def lines() -> Iterator[str]:
        for recurrence, (m, *_) in parse_named("layers", measured, hosts.MODELS):
            row = attempt(
                {"layer": recurrence, "m": m}, setup.device, partial(hosts.measure, recurrence, m, setup)
            )
            record["layers"].append(row)
            yield f"{recurrence}:{m}: {report.reason(row) or 'measured'}"

    _carry_out(lines(), record, out)


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
    counts = parse_numbers("packed", packed) if packed.strip() else []
    record = training.new_record(setting)

    def lines() -> Iterator[str]:
        for kind, row in training.run(setting, counts):
            record[kind].append(row)
            yield _line(f"{row['concurrent']} concurrent" if kind == "packed" else row["mode"], row)

    _carry_out(lines(), record, out)


def language_models(
    device: Device = None,
    out: Out = None,
    repeats: Repeats = 9,
    size: Annotated[str, typer.Option(help="A size of the presets of `statemix lm train`.")] = "212m",
    models: Annotated[str, typer.Option(help="all, or names, comma-separated.")] = "all",
    parts: Annotated[
        str, typer.Option(help="training, prompt, context, generation, comma-separated.")
    ] = "training",
    lengths: Annotated[str, typer.Option(help="T of training.")] = "2048,16384",
    prompts: Annotated[str, typer.Option(help="Tokens of prompts.")] = "131072",
    contexts: Annotated[
        str, typer.Option(help="Tokens before the one that is timed.")
    ] = "1024,32768,1048576",
    batches: Annotated[str, typer.Option(help="Sequences that are generated side by side.")] = "1,64",
    new: Annotated[int, typer.Option(help="Tokens that are generated.")] = 128,
    tokens: Annotated[int, typer.Option(help="Tokens of a micro-batch in training.")] = 32_768,
    compiled: Annotated[bool, typer.Option(help="Whether blocks are compiled in training.")] = True,
) -> None:
    """Time whole language models of equal parameters beside a Transformer: training, prompts and generation.

    Weights are random and so are the tokens. Needs the extras lm and hf.
    """
    from benchmarks import language_models as lm

    where = make_setup(device, None, repeats).device
    check_positive(new=new, tokens=tokens)
    setting = lm.Setting(size, choose(models, lm.models_of(size)), where, tokens, repeats, compiled)
    numbers = {"lengths": lengths, "prompts": prompts, "contexts": contexts, "batches": batches}
    cases = lm.Cases(**{name: parse_numbers(name, text) for name, text in numbers.items()}, new=new)
    record = lm.new_record(setting)

    def lines() -> Iterator[str]:
        for part in choose(parts, lm.PARTS):
            for row in lm.PARTS[part](setting, cases):
                record[part].append(row)
                yield _line(f"{part} {row['model']}", row)

    _carry_out(lines(), record, out)


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
    "host": (host, f"{NAME} host --layers hlru:2 --repeats 2 --out host.json"),
    "train": (train, f"{NAME} train task.length=4 --steps 1 --packed 2"),
    "language-models": (
        language_models,
        f"{NAME} language-models --models bdlru-m4,transformer --parts prompt --prompts 64 --repeats 1",
    ),
    "picture": (picture, f"{NAME} picture scan.json --out speed.png"),
    "report": (report_records, f"{NAME} report scan.json layer.json d.json --out speed.md"),
}

PROGRAM = Program(
    name=NAME,
    help="Measure speed.",
    commands=COMMANDS,
    example=f"{NAME} scan --shapes hlru:4 --repeats 3 --length 64",
)
