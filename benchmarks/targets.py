"""Every figure that was asked of the GPU kernels, as data, and where a record holds what was reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Record = dict[str, Any]

BDLRU, WIDE = ("bdlru", 1, 2, 4, 8), ("bdlru", 16)
HLRU = ("hlru", 4, 8, 16)

ASKED: dict[tuple[int, int], dict[tuple[Any, ...], tuple[float, float]]] = {
    (8, 2048): {BDLRU: (85, 80), WIDE: (80, 75), HLRU: (85, 80), ("bdlru", 3, 5): (75, 70)},
    (32, 2048): {BDLRU: (90, 85), WIDE: (85, 80), HLRU: (90, 85)},
    (1, 65536): {("bdlru", 1, 2, 4): (65, 60), ("bdlru", 8, 16): (60, 55), HLRU: (60, 55)},
}
"""Percent of the copy's speed, forward and backward, by (B, T), for a state size of 1024 in bfloat16."""

STATE = 1024
"""The width H of a step's values and states: N m, for H-LRU the number of channels N."""


def asked_percent(row: Record) -> tuple[float, float] | None:
    """What was asked of a measured case: forward and backward; None where nothing was."""
    width = row["blocks"] * (1 if row["recurrence"] == "hlru" else row["m"])
    if (
        row["dtype"] != "bfloat16" or abs(width - STATE) >= 8 * row["m"]
    ):  # as near as N of a round number comes
        return None
    for (recurrence, *sizes), percent in ASKED.get((row["batch"], row["length"]), {}).items():
        if row["recurrence"] == recurrence and row["m"] in sizes:
            return percent
    return None


class Figure(NamedTuple):
    """One figure: what it is, the bound, whether it is the most or the least allowed, and how a record tells it.

    `value` returns None where the record does not hold it.
    """

    name: str
    asked: float
    at_most: bool
    unit: str
    bench: str
    value: Callable[[Record], float | None]

    def reached(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value <= self.asked if self.at_most else value >= self.asked


def _extra_memory(record: Record) -> float | None:
    shares = [row["extra_memory"]["percent_of_gates"] for row in record["cases"] if "extra_memory" in row]
    return max(shares, default=None)


def _rival(name: str) -> Callable[[Record], float | None]:
    return lambda record: record["rivals"].get(name, {}).get("times_ours")


def _scan_rival(name: str) -> Callable[[Record], float | None]:
    """At the shape and dtype that were asked about."""

    def value(record: Record) -> float | None:
        case = record["rivals"].get(name, {}).get("case", {})
        right = record["dtype"] == "bfloat16" and (case.get("batch"), case.get("length")) == (8, 2048)
        return _rival(name)(record) if right else None

    return value


def _the_layer(record: Record) -> bool:
    """Whether a record is of the layer that was asked about."""
    shape = tuple(record[field] for field in ("preset", "dim", "batch", "length", "dtype"))
    return shape == ("layer", 1024, 8, 2048, "bfloat16")


def _layer_rival(name: str) -> Callable[[Record], float | None]:
    return lambda record: _rival(name)(record) if _the_layer(record) else None


def _products(record: Record) -> float | None:
    ratios = [row.get("times_products") for row in record["ours"] if row["m"] == 4]
    return ratios[0] if ratios and _the_layer(record) else None


def _step(layer: str, m: int) -> Callable[[Record], float | None]:
    def value(record: Record) -> float | None:
        for row in record["layers"]:
            if (row["layer"], row["m"], row.get("dim"), row.get("batch")) == (layer, m, 1024, 128):
                return row["us"]["median"]
        return None

    return value


def _flat(record: Record) -> float | None:
    """The longest over the shortest median of one layer by position, of the layers that ran on to a million."""
    ratios = []
    for row in record["layers"]:
        by_position = {one["position"]: one["us"]["median"] for one in row.get("one_layer", [])}
        if max(by_position, default=0) >= 1_000_000:
            ratios.append(max(by_position.values()) / min(by_position.values()))
    return max(ratios, default=None)


FIGURES: list[Figure] = [
    Figure(
        "extra memory in training, of the gates' bytes (the largest of all cases)", 5, True, " %", "scan",
        _extra_memory,
    ),
    Figure(
        "the authors' algorithm, m = 4, eager, against ours", 100, False, "×", "scan",
        _scan_rival("associative_scan"),
    ),
    Figure(
        "the authors' algorithm, m = 4, torch.compile, against ours", 100, False, "×", "scan",
        _scan_rival("associative_scan_compiled"),
    ),
    Figure("layer, m = 4, against its own matrix products", 1.25, True, "×", "layer", _products),
    *(
        Figure(f"fla {name} against our layer of as many parameters", asked, False, "×", "layer", _layer_rival(name))
        for name, asked in {
            "DeltaNet": 2, "GatedDeltaNet": 2, "GatedDeltaProduct": 2, "RWKV7": 2, "RWKV7 default": 2,
            "HGRN": 1, "GLA": 1,
        }.items()
    ),
    Figure("cuDNN LSTM against our layer of as many parameters", 30, False, "×", "layer", _layer_rival("LSTM")),
    *(
        Figure(f"step, {layer} m = {m}, d = 1024, B = 128, per layer", 20, True, " µs", "decode", _step(name, m))
        for layer, name, sizes in (("BD-LRU", "bdlru", (1, 2, 4, 8, 16)), ("H-LRU", "hlru", (4,)))
        for m in sizes
    ),
    Figure("step, slowest over fastest position from 1 to 1 000 000", 1.05, True, "×", "decode", _flat),
]  # fmt: skip
"""Every figure but the scans' percentages, which are `ASKED`."""
