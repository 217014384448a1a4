"""Tables of recorded measurements, one per kind of record: on a terminal, and as a page in Markdown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.records import NAME, Record, write_text
from statemix.text import visible

ROWS = ("cases", "layers", "modes", "packed", "training", "prompt", "context", "generation")
"""Entries of records that hold measured rows."""

NAMES = {"bdlru": "BD-LRU", "hlru": "H-LRU", "affine": "affine"}
Row = dict[str, object]


def number(value: float) -> str:
    """Three significant digits, and never an exponent above."""
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if abs(value) >= 100 else text


def quartiles(times: Record) -> str:
    """Median, in brackets the quartiles."""
    return f"{number(times['median'])} ({number(times['lower_quartile'])}–{number(times['upper_quartile'])})"


def reason(row: Record) -> str:
    """Why there are no times, or an empty text."""
    return next((f"{word}: {row[word]}" for word in ("failed", "skipped") if word in row), "")


def _number(row: Record, *keys: str, unit: str = "") -> str:
    """The number below a row's keys, or an empty text."""
    found: Any = row
    for key in keys:
        if key not in found:
            return ""
        found = found[key]
    return number(found) + unit


def _median(row: Record, name: str) -> str:
    return _number(row, name, "ms", "median")


def _size(row: Record) -> str:
    return f"{row['batch']}×{row['length']}×{row['blocks']}"


def scan_name(row: Record, *, short: bool = False) -> str:
    """A measured scan as tables call it, or (short) pictures."""
    name, m = NAMES.get(row["recurrence"], row["recurrence"]), row["m"]
    return (f"{name} {m}" if short else f"{name} m = {m}") + ", hard" * row.get("hard", False)


def _passes(record: Record) -> Iterator[Row]:
    for row in record["cases"]:
        result = {"scan": scan_name(row), "N": row["blocks"]}
        for name in ("forward", "backward"):
            time = reason(row) if "failed" in row else (
                f"{number(1000 * row[name]['ms']['median'])} ({number(row[name]['percent_of_copy'])} %)"
            )  # fmt: skip
            result[f"{row['batch']}×{row['length']} {name}"] = time
        yield result


def _scan_baselines(record: Record) -> Iterator[Row]:
    for name, row in record["baselines"].items():
        shape = row.get("case")
        yield {
            "baseline": name,
            "what": reason(row) or f"{row['description']}; {row['package']}, {row['dtype']}",
            "B×T×N": f"{_size(shape)}, m = {shape['m']}" if shape else "",
            "forward": _median(row, "forward"),
            "forward + backward": _median(row, "both"),
            "time / BD-LRU": _number(row, "relative_time", unit="×"),
        }


def _implementations(record: Record) -> Iterator[Row]:
    first = next(iter(record["implementations"]))
    for row in record["cases"]:
        cells = {first: reason(row)}
        for name in record["implementations"] if "results" in row else ():
            own, ms = row["results"][first]["ms"], row["results"][name]["ms"]
            ratio = "" if name == first else f", {number(ms['median'] / own['median'])}×"
            cells[name] = quartiles(ms) + ratio
        yield {"scan": scan_name(row), "B×T×N": _size(row), **cells}


def _layers(record: Record) -> Iterator[Row]:
    rows: list[tuple[str, Any]] = [(row["name"], row) for row in record["layers"]]
    rows += list(record["baselines"].items())
    for name, row in sorted(rows, key=lambda pair: -pair[1].get("tokens_per_s", 0)):
        yield {
            "layer": name,
            "parameters": f"{row['parameters']:,}" if "parameters" in row else reason(row),
            "forward": _median(row, "forward"),
            "forward + backward": _median(row, "both"),
            "launched": _median(row, "launched"),
            "tokens/s": _number(row, "tokens_per_s"),
            "time / products": _number(row, "times_products", unit="×"),
            "time / BD-LRU": _number(row, "relative_time", unit="×"),
        }


def _decode(record: Record) -> Iterator[Row]:
    for row in record["layers"]:
        far = (f"{one['position']}: {number(one['us']['median'])}" for one in row.get("one_layer", []))
        yield {
            "layer": f"{NAMES.get(row['layer'], row['layer'])} m = {row['m']}",
            "width": row.get("dim", ""),
            "B": row.get("batch", ""),
            "in a stack": reason(row) or quartiles(row["us"]),
            "alone, at position": ", ".join(far),
        }


def _host(record: Record) -> Iterator[Row]:
    for row in record["layers"]:
        cells = {name: number(times["median"]) for name, times in row.get("us", {}).items()}
        yield {"model": f"{NAMES[row['layer']]} m = {row['m']}", "failed": reason(row), **cells}


def _task(record: Record) -> str:
    task = record["config"]["task"]
    length = f", T = {task['length']}" if "length" in task else ""
    return f"{task['name']}{length}, batch {record['config']['training']['batch_size']}"


def _modes(record: Record) -> Iterator[Row]:
    for row in record["modes"]:
        yield {
            "task": _task(record),
            "mode": row["mode"],
            "ms per step": reason(row) or quartiles(row["ms"]),
            "tokens/s": _number(row, "tokens_per_s"),
            "ready after, s": _number(row, "ready_s"),
            "kernels": _number(row, "kernels", "per_step"),
        }


def _concurrent(record: Record) -> Iterator[Row]:
    for row in record["packed"]:
        yield {
            "task": _task(record),
            "runs": row["concurrent"],
            "ms per step and run": reason(row) or quartiles(row["ms_per_step"]),
            "steps/s, all runs": _number(row, "steps_per_s"),
        }


def _lm(record: Record, part: str) -> Iterator[Row]:
    for row in record[part]:
        names = {name: row[name] for name in ("length", "prompt", "context", "batch", "new") if name in row}
        share = {} if part != "training" else {
            "parameters, M": _number({"m": row["parameters"] / 1e6}, "m") if "parameters" in row else "",
            "share of matrix products": _number({"s": 100 * row["share_of_matmul"]}, "s", unit=" %")
            if "share_of_matmul" in row else "",
        }  # fmt: skip
        yield {
            "model": row["model"],
            **names,
            "ms": reason(row) or quartiles(row["ms"]),
            "tokens/s": _number(row, "tokens_per_s"),
            **share,
            "memory, GiB": _number(row, "memory_gib"),
        }


def _checks(record: Record) -> Iterator[Row]:
    for row in record["checks"]:
        errors = [value for value in row["gradient_errors"].values() if value is not None]
        yield {
            "baseline": row["baseline"],
            "operation": row["operation"],
            "computed by": f"{row['runs']}, {row['dtype']}" if row["runs"] else row["reason"],
            "outputs": "" if row["output_error"] is None else f"{row['output_error']:.1e}",
            "gradients": f"{max(errors):.1e}" if errors else "",
            "bound": f"{row['bound']:.0e}",
            "passed": "yes" if row["passed"] else "no",
        }


def _resources(record: Record) -> Iterator[Row]:
    rows = [
        (version, target, kernel, *numbers)
        for version, targets in record["versions"].items()
        for target, kernels in targets.items()
        for kernel, calls in kernels.items()
        for numbers in calls.values()
    ]
    frame = pd.DataFrame(rows, columns=["Triton", "target", "kernel", *record["numbers"]])
    for (version, target), calls in frame.groupby(["Triton", "target"]):
        yield {
            "Triton": version,
            "target": target,
            "kernels": calls["kernel"].nunique(),
            "launches": len(calls),
            "with spills": (calls["spill_bytes"] > 0).sum(),
            "registers, at most": calls["registers"].max(),
            "shared memory, at most": f"{calls['shared'].max() / 1024:.0f} KiB",
        }


class Kind(NamedTuple):
    """A table: its title, what its numbers mean, the entries that tell its records, and the rows of one record.

    `key`: columns that identify a row; rows that agree in them become one.
    """

    title: str
    note: str
    bench: str | None
    entry: str
    rows: Callable[[Record], Iterator[Row]]
    key: tuple[str, ...] = ()


KINDS = (
    Kind("Scans: forward and backward", "Median µs at B×T, and the share of a plain copy's speed on the bytes that the "
         "pass must move at least.", "scan", "passes", _passes, ("scan", "N")),
    Kind("Scans: baselines", "Median ms.", "scan", "baselines", _scan_baselines),
    Kind("Scans: implementations", "Forward + backward in ms: median (quartiles), and × the first implementation.",
         "scan", "implementations", _implementations),
    Kind("Layers", "Median ms, fastest first; as a CUDA graph on a GPU, and launched (forward + backward). Products: "
         "the layer's matrix products alone.", "layer", "layers", _layers),
    Kind("Decoding", "µs of one layer's step: per layer of a stack, median (quartiles), and one layer by position.",
         "decode", "layers", _decode),
    Kind("The host's time", "Median µs of a call of 64 steps and 16 channels, launched.", "host", "layers", _host),
    Kind("Training steps", "Median (quartiles).", "train", "modes", _modes),
    Kind("Training: concurrent runs", "Median (quartiles).", "train", "packed", _concurrent),
    Kind("Language models: training", "Median ms (quartiles) of a micro-batch, forward and backward, and its memory. "
         "Tokens per second with clip and AdamW. Share of a large product's rate, at 6 FLOPs a weight and token.",
         "language-models", "training", partial(_lm, part="training")),
    Kind("Language models: a prompt's first token", "Median ms (quartiles), batch 1.", "language-models", "prompt",
         partial(_lm, part="prompt")),
    Kind("Language models: a token behind others", "Median ms (quartiles), batch 1; memory above the weights, prompt "
         "included.", "language-models", "context", partial(_lm, part="context")),
    Kind("Language models: generation", "Median ms (quartiles) of the whole batch; new tokens per second.",
         "language-models", "generation", partial(_lm, part="generation")),
    Kind("Baselines against float64 loops", "Relative root-mean-square error: of the outputs, and the largest of the "
         "gradients.", "baselines", "checks", _checks),
    Kind("Compiled GPU kernels", "Resources of all recorded launches.", None, "numbers", _resources),
)  # fmt: skip
"""Every table, in the order of the page."""


Table = tuple[str, str, pd.DataFrame]
"""Title, note, and the rows of one or several records of a kind, as text."""


def make_tables(records: Mapping[str, Record]) -> list[Table]:
    """The tables of records by path. ValueError naming a record that is damaged or of no known kind."""
    frames: dict[Kind, list[pd.DataFrame]] = {kind: [] for kind in KINDS}
    for path, record in records.items():
        bench = record.get("bench")
        kinds = [kind for kind in KINDS if kind.bench == bench and record.get(kind.entry)]
        if not kinds:
            raise ValueError(f"{path}: got a record of {bench!r}, expected one of `{NAME}`")
        for kind in kinds:
            frames[kind].append(_frame(kind, path, record))
    tables = []
    for kind, found in frames.items():
        if found:
            frame = pd.concat(found) if len(found) > 1 else found[0].drop(columns="record")
            tables.append((kind.title, kind.note, frame.fillna("").map(visible)))
    return tables


def _frame(kind: Kind, path: str, record: Record) -> pd.DataFrame:
    try:
        frame = pd.DataFrame(list(kind.rows(record)))
        if kind.key:
            frame = frame.groupby(list(kind.key), sort=False).first().reset_index()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: is not a whole record of {record.get('bench')!r}: {error!r}") from None
    return frame.assign(record=Path(path).stem)


def markdown(frame: pd.DataFrame) -> Iterator[str]:
    """The lines of a table in Markdown."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(visible(cell).replace("|", "\\|") for cell in cells) + " |"

    yield line(frame.columns)
    yield "|" + "---|" * len(frame.columns)
    yield from map(line, frame.itertuples(index=False))


def make_page(records: Mapping[str, Record], folder: Path) -> str:
    """All tables in Markdown, first one of the records with links as from `folder`. Errors as `make_tables`."""
    if not records:
        raise ValueError(f"files: got none, expected records of `{NAME}`")
    tables = [("Records", "", pd.DataFrame([_origin(p, r, folder) for p, r in records.items()]))]
    lines = []
    for title, note, frame in tables + make_tables(records):
        lines += [f"## {title}", "", *([note, ""] if note else []), *markdown(frame), ""]
    return "\n".join(lines)


def _origin(path: str, record: Record, folder: Path) -> Row:
    record = record | record.get("environment", {})
    versions = record.get("versions", {}) if "bench" in record else {}
    compilers = [f"{name} {versions[name]}" for name in ("torch", "triton", "numba") if versions.get(name)]
    if "threads" in record and "cuda" not in record:
        compilers.append(f"{record['threads']} threads")
    return {
        "record": f"[{Path(path).stem}]({os.path.relpath(path, folder)})",
        "command": f"`{record['command']}`" if record.get("command") else "",
        "hardware": record.get("device", ""),
        "versions": ", ".join(compilers[:2] if "cuda" in record else compilers),
        "date": str(record.get("date", ""))[:10],
    }


def write_page(records: Mapping[str, Record], out: Path) -> Path:
    """Write the page of records by path, and nothing else. ValueError also for an `out` that is one of the records."""
    check_out(records, out)
    write_text(out, make_page(records, out.parent))
    return out


def check_out(records: Mapping[str, Record], out: Path) -> None:
    """ValueError for an output file that is one of the records."""
    if out.resolve() in {Path(path).resolve() for path in records}:
        raise ValueError(f"out: got {str(out)!r}, which is one of the records, expected another file")
