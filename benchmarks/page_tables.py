"""The tables of the page of measurements, one kind of record each, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.targets import Record, asked_percent
from statemix.text import visible

NAMES = {"bdlru": "BD-LRU", "hlru": "H-LRU", "affine": "affine"}
LAYERS = {"bdlru": "BDLRU", "hlru": "HLRU"}


def plain(text: object) -> str:
    """Text of a record inside a cell of a table."""
    return visible(text).replace("|", "\\|")


def number(value: float) -> str:
    """Three significant digits, and never an exponent above."""
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if abs(value) >= 100 else text


def _name(row: Record) -> str:
    return f"{NAMES.get(row['recurrence'], plain(row['recurrence']))} m = {row['m']}"


def _layer_name(row: Record) -> str:
    return f"{LAYERS.get(row['layer'], plain(row['layer']))} m={row['m']}"


def _sizes(row: Record) -> str:
    return f"{row['batch']}×{row['length']}×{row['blocks']}"


def comparison(record: Record, link: str) -> Iterator[str]:
    """Scans forward + backward beside other ways to compute them, as on a CPU."""
    ours, *others = record["contestants"]
    yield f"## Scans: milliseconds, forward + backward ({plain(record['device'])}, {record['threads']} threads)"
    yield ""
    yield f"From {link}. Medians, in brackets the quartiles; × is the time over that of {plain(ours)}."
    yield ""
    yield f"| | B×T×N | {' | '.join(f'{plain(name)} ms' for name in (ours, *others))} |"
    yield f"|---|---|{'---|' * (1 + len(others))}"
    for row in record["cases"]:
        least = row["results"][ours]["ms"]["median"]
        cells = [
            _quartiles(row["results"][name]["ms"], None if name == ours else least)
            for name in (ours, *others)
        ]
        yield f"| {_name(row)} | {_sizes(row)} | {' | '.join(cells)} |"
    yield ""
    yield "| | what it is |"
    yield "|---|---|"
    yield from (f"| {plain(name)} | {plain(what)} |" for name, what in record["contestants"].items())
    yield ""


def _quartiles(ms: Record, over: float | None) -> str:
    ratio = "" if over is None else f", **{number(ms['median'] / over)}×**"
    return f"{number(ms['median'])} ({number(ms['lower_quartile'])}–{number(ms['upper_quartile'])}){ratio}"


def _cell(value: float, asked: float | None, digits: int = 3) -> str:
    """A percentage, and by how many points it misses what was asked."""
    text = f"{value:.{digits}g}"
    return text if asked is None or value >= asked else f"**{text}** (missed by {asked - value:.2g})"


def passes(record: Record, link: str) -> Iterator[str]:
    """Scans forward and backward apart, beside a plain copy."""
    copy = f"{record['copy']['tb_per_s']:.3g} TB/s read and written"
    yield f"## Scans: percent of a plain copy ({record['dtype']}, {copy})"
    yield ""
    yield f"From {link}. Percent on the bytes that a pass must move at least."
    yield ""
    yield "| | B×T×N | forward µs | % | asked | backward µs | % | asked |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_scan_line(row) for row in record["cases"])
    yield ""
    if record["rivals"]:
        yield from _scan_rivals(record)


def _scan_line(row: Record) -> str:
    name = f"{_name(row)} | {_sizes(row)}"
    if "failed" in row:
        return f"| {name} | failed: {plain(row['failed'])} | | | | | |"
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
        sizes = f"{_sizes(case)}, {case['m']}" if case else ""
        note = (
            row.get("left_out")
            or row.get("failed")
            or f"{row['description']}; {row['package']}, {row['dtype']}"
        )
        times = [_median(row, one) for one in ("forward", "both")]
        ratio = f"{row['times_ours']:.3g}" if "times_ours" in row else ""
        yield f"| {name} | {sizes} | {times[0]} | {times[1]} | {ratio} | {plain(note)} |"
    yield ""


def _median(row: Record, name: str) -> str:
    return f"{row[name]['ms']['median']:.4g}" if name in row else ""


def layers(record: Record, link: str) -> Iterator[str]:
    """Every measured layer, ours and the baselines, in the order of speed."""
    shape = f"d = {record['dim']}, B{record['batch']} T{record['length']}, {record['dtype']}"
    yield f"## Layers, preset {plain(record['preset'])} ({shape})"
    yield ""
    yield f"From {link}; fastest first."
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
        return f"| {plain(name)} | {plain(note)} | | | | | |"
    ratio = f"{row['times_ours']:.3g}" if "times_ours" in row else ""
    times = " | ".join(_median(row, one) for one in ("forward", "both", "launched"))
    return f"| {plain(name)} | {row['parameters']:,} | {times} | {row['tokens_per_s']:.3g} | {ratio} |"


def decode(record: Record, link: str) -> Iterator[str]:
    """Microseconds of one token, in a stack of layers and of one layer by position."""
    yield f"## Decoding: microseconds of a layer's step ({plain(record['device'])})"
    yield ""
    yield f"From {link}. In a stack: per layer, median and quartiles. Alone: one layer, after so many tokens."
    yield ""
    yield "| | d | B | dtype | in a stack µs | alone, at position: µs |"
    yield "|---|---|---|---|---|---|"
    for row in record["layers"]:
        if "failed" in row:
            yield f"| {_layer_name(row)} | | | | failed: {plain(row['failed'])} | |"
            continue
        alone = ", ".join(
            f"{one['position']}: {number(one['us']['median'])}" for one in row.get("one_layer", [])
        )
        sizes = f"{row['dim']} | {row['batch']} | {row.get('dtype', '')}"
        yield f"| {_layer_name(row)} | {sizes} | {_quartiles(row['us'], None)} | {alone} |"
    yield ""


def training(record: Record, link: str) -> Iterator[str]:
    """Milliseconds of a training step, by how it is run, and of runs side by side."""
    settings = record["config"]
    what = f"{plain(settings['task']['name'])}, batch {settings['training']['batch_size']}"
    yield f"## Training: milliseconds of a step ({what}, {plain(record['device'])})"
    yield ""
    yield f"From {link}. Medians, in brackets the quartiles."
    yield ""
    yield "| how steps run | ms a step | tokens/s |"
    yield "|---|---|---|"
    for row in record["ways"]:
        yield f"| {plain(row['capture'])} | {_step(row, 'ms')} | {_number(row, 'tokens_per_s')} |"
    yield ""
    if record["packed"]:
        yield "| runs side by side | ms a step and run | steps/s, all | runs in ten minutes |"
        yield "|---|---|---|---|"
        for row in record["packed"]:
            rates = f"{_number(row, 'steps_per_s')} | {_number(row, 'runs_in_ten_minutes')}"
            yield f"| {row['side_by_side']} | {_step(row, 'ms_per_step')} | {rates} |"
        yield ""


def _step(row: Record, key: str) -> str:
    return f"failed: {plain(row['failed'])}" if "failed" in row else _quartiles(row[key], None)


def _number(row: Record, key: str) -> str:
    return number(row[key]) if key in row else ""


class Kind(NamedTuple):
    """A kind of record: the bench that takes it, the entry that tells it from the others of it, and its table."""

    bench: str
    entry: str
    table: Callable[[Record, str], Iterator[str]]


KINDS = (
    Kind("scan", "passes", passes),
    Kind("scan", "contestants", comparison),
    Kind("layer", "ours", layers),
    Kind("decode", "layers", decode),
    Kind("train", "ways", training),
)
"""Every kind of record that the page shows, in the order of the page."""


def kind_of(record: Record) -> Kind | None:
    """The kind of a record, or None for one that the page does not show."""
    return next((kind for kind in KINDS if kind.bench == record["bench"] and kind.entry in record), None)
