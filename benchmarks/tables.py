"""The tables that `statemix bench` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.contestants import CONTESTANTS
from statemix.cli.console import Styled
from statemix.cli.table import Cell, Column, Table
from statemix.text import visible

Row = dict[str, Any]

FAILED = Styled("failed", "red")

NOTE = "note"
"""The heading of a column of text."""


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table whose first `left` columns are flush left and whose others are numbers; notes are prose."""
    kinds = (
        Column(name, number=place >= left and name != NOTE, prose=name == NOTE)
        for place, name in enumerate(columns)
    )
    return Table(title, list(kinds))


def where(record: Row) -> str:
    """Where a record was taken."""
    return f"{record['device']}, torch {record['versions']['torch']}"


def comparison(record: Row) -> Table:
    """One line a case; each rival also as a multiple of the first contestant's median."""
    place = f"{record['device']}, {record['threads']} threads, torch {record['versions']['torch']}"
    names = [Column(name.replace("_fast", " fast"), number=True, prose=True) for name in CONTESTANTS]
    shown = Table(f"forward + backward, ms; {place}", [Column("scan"), *names])
    for row in record["cases"]:
        ours = row["results"][next(iter(CONTESTANTS))]["ms"]["median"]
        cells = [_compared(row["results"][name]["ms"], ours) for name in CONTESTANTS]
        shown.add_row([f"{row['recurrence']} {row['m']}", Styled(sizes(row), "dim")], *cells)
    return shown


def number(value: float, digits: int = 3) -> str:
    """So many digits that count; all of a larger number's."""
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def _compared(ms: dict[str, float], ours: float) -> Cell:
    ratio = "" if ms["median"] == ours else f" ({number(ms['median'] / ours)}×)"
    return [f"{number(ms['median'])}{ratio}", _quartiles(ms)]


def _quartiles(times: dict[str, float], digits: int = 3) -> Styled:
    return Styled(
        f"{number(times['lower_quartile'], digits)}-{number(times['upper_quartile'], digits)}", "dim"
    )


def sizes(row: Row) -> str:
    """B×T×N of a case."""
    return f"{row['batch']}×{row['length']}×{row['blocks']}"


def milliseconds(timed: Row) -> str:
    """A median, and its quartiles."""
    ms = timed["ms"]
    return f"{number(ms['median'], 4)} ({_quartiles(ms, 4)})"


def _timed(timed: Row) -> Cell:
    """As `milliseconds`, one below the other."""
    return [number(timed["ms"]["median"], 4), _quartiles(timed["ms"], 4)]


def one_scan(row: Row) -> str:
    """A measured case in one line."""
    name = f"{row['recurrence']} {row['m']} {sizes(row)}"
    if "failed" in row:
        return f"{name} {outcome(row)}"
    passes = (
        f"{one} {milliseconds(row[one])} ms {row[one]['percent_of_copy']:.3g} %"
        for one in ("forward", "backward")
    )
    return f"{name} {', '.join(passes)}"


def outcome(row: Row) -> str:
    """How the measurement of a row went, in one line."""
    note = row.get("left_out") or row.get("failed")
    if note:
        return visible(note)
    if "us" in row:
        return f"{number(row['us']['median'], 4)} µs"
    return f"{milliseconds(row['both'])} ms"


def passes(record: Row) -> Iterator[Table]:
    """Our cases, then the rivals."""
    copy = f"copy {record['copy']['tb_per_s']:.3g} TB/s"
    shown = _table(
        f"scan, {record['dtype']}, ms and % of copy; {where(record)}, {copy}",
        "", "B×T×N", "forward", "%", "backward", "%", "extra memory", "error",
    )  # fmt: skip
    for row in record["cases"]:
        name = f"{row['recurrence']} {row['m']}"
        if "failed" in row:
            shown.add_row(name, sizes(row), FAILED, *[""] * 5)
            continue
        cells = [
            cell
            for one in ("forward", "backward")
            for cell in (_timed(row[one]), Styled(f"{row[one]['percent_of_copy']:.3g}", "bold"))
        ]
        extra = row.get("extra_memory", {}).get("percent_of_gates")
        memory = "" if extra is None else f"{extra:.2g} %"
        shown.add_row(name, sizes(row), *cells, memory, f"{max(row['errors'].values()):.1e}")
    yield shown
    if record["rivals"]:
        yield _rivals(record["rivals"])


def _rivals(rivals: dict[str, Row]) -> Table:
    shown = _table("rivals, ms; × is against ours, forward + backward", "", "forward", "both", "×", NOTE)
    for name, row in rivals.items():
        note = row.get("left_out") or row.get("failed") or ""
        timed = [_timed(row[one]) if one in row else "" for one in ("forward", "both")]
        ratio = f"{row['times_ours']:.3g}" if "times_ours" in row else ""
        shown.add_row(name, *timed, ratio, note)
    return shown


def layers(record: Row) -> Iterator[Table]:
    """Our layers with their matrix products, then the rivals."""
    shape = f"d={record['dim']}, B{record['batch']} T{record['length']}, {record['dtype']}"
    shown = _table(
        f"our layers, {shape}, ms, both: forward + backward; × their products; {where(record)}",
        "", "N", "weights", "forward", "both", "launched", "tokens/s", "products", "×",
    )  # fmt: skip
    for row in record["ours"]:
        if "failed" in row:
            shown.add_row(row["name"], FAILED, *[""] * 7)
            continue
        shown.add_row(
            row["name"], str(row["blocks"]), f"{row['parameters']:,}", _timed(row["forward"]), _timed(row["both"]),
            _launched(row), f"{row['tokens_per_s']:.3g}", _timed(row["products"]["both"]),
            Styled(f"{row['times_products']:.3g}", "bold"),
        )  # fmt: skip
    yield shown
    if record["rivals"]:
        yield _layer_rivals(record["rivals"])


def _launched(row: Row) -> Cell:
    return _timed(row["launched"]) if "launched" in row else ""


def _layer_rivals(rivals: dict[str, Row]) -> Table:
    shown = _table(
        "rivals, ms, both: forward + backward; × is against ours",
        "", "weights", "forward", "both", "launched", "tokens/s", "×", NOTE,
    )  # fmt: skip
    for name, row in rivals.items():
        note = row.get("left_out") or row.get("failed")
        if note:
            shown.add_row(name, *[""] * 6, note)
            continue
        against = f"{row['against']['name']}, {row['against']['parameters']:,}"
        shown.add_row(
            name, f"{row['parameters']:,}", _timed(row["forward"]), _timed(row["both"]),
            _launched(row), f"{row['tokens_per_s']:.3g}", Styled(f"{row['times_ours']:.3g}", "bold"), against,
        )  # fmt: skip
    return shown


def decode(record: Row) -> Table:
    """One line a layer: microseconds of a step in the stack, then alone at each position."""
    shown = _table(
        f"one step, µs; {where(record)}", "", "d", "B", "weights", "stack of", "per layer", "alone, at position",
    )  # fmt: skip
    for row in record["layers"]:
        name = f"{row['layer']} {row['m']}"
        if "failed" in row:
            shown.add_row(name, FAILED, *[""] * 5)
            continue
        us = row["us"]
        alone: Cell = [f"{one['position']}: {number(one['us']['median'])}" for one in row["one_layer"]]
        per_layer: Cell = [number(us["median"]), _quartiles(us)]
        shown.add_row(
            name,
            str(row["dim"]),
            str(row["batch"]),
            f"{row['parameters']:,}",
            str(row["stack"]),
            per_layer,
            alone,
        )
    return shown


def one_step(row: Row) -> str:
    """A measured way to train, or a number of runs side by side, in one line."""
    name = row.get("capture", "") if "side_by_side" not in row else f"{row['side_by_side']} side by side"
    if "failed" in row:
        return f"{name}: {outcome(row)}"
    return f"{name}: {milliseconds({'ms': row.get('ms') or row['ms_per_step']})} ms a step"


def training(record: Row) -> Iterator[Table]:
    """The ways to run steps, then runs side by side."""
    sizes = f"batch {record['config']['training']['batch_size']}, {record['config']['task']['name']}"
    shown = _table(
        f"one training step, ms; {sizes}; {where(record)}",
        "", "ms", "tokens/s", "kernels", "their ms", "ready after, s",
    )  # fmt: skip
    for row in record["ways"]:
        if "failed" in row:
            shown.add_row(row["capture"], FAILED, *[""] * 4)
            continue
        kernels = row.get("kernels")
        counted = ["", ""] if kernels is None else [
            f"{kernels['per_step']:.4g}", f"{kernels['us_per_step'] / 1000:.3g}",
        ]  # fmt: skip
        speed = f"{row['tokens_per_s']:.3g}"
        shown.add_row(row["capture"], _timed(row), speed, *counted, f"{row['ready_s']:.3g}")
    yield shown
    if record["packed"]:
        yield _packed(record["packed"])


def _packed(rows: list[Row]) -> Table:
    shown = _table("runs side by side", "", "ms per step and run", "steps/s, all", "runs in ten minutes")
    for row in rows:
        name = str(row["side_by_side"])
        if "failed" in row:
            shown.add_row(name, FAILED, "", "")
            continue
        ms = _timed({"ms": row["ms_per_step"]})
        shown.add_row(
            name, ms, f"{row['steps_per_s']:.4g}", Styled(f"{row['runs_in_ten_minutes']:.3g}", "bold")
        )
    return shown
