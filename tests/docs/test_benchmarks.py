"""The figures of docs/benchmarks.md are those of the records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
NAMES = {"bdlru": "BD-LRU", "hlru": "H-LRU"}


def record(name):
    return json.loads((ROOT / "benchmarks" / "records" / f"{name}.json").read_text())


def line(start):
    return next(line for line in PAGE.splitlines() if line.startswith(start))


def numbers(text):
    return [float(number.replace(" ", "")) for number in re.findall(r"\d[\d ]*(?:\.\d+)?", text)]


def test_scans_on_a_cpu():
    content = record("scan_cpu")
    for case in content["cases"]:
        row = line(f"| {NAMES[case['recurrence']]}, m = {case['m']} |")
        statemix, *others = [one["ms"]["median"] for one in case["results"].values()]
        expected = [statemix] + [value for ms in others for value in (ms, ms / statemix)]
        assert numbers(row.split("|", 2)[2]) == pytest.approx(expected, rel=6e-3)


SHAPES = [(8, 2048), (32, 2048), (1, 65536)]


def test_scans_on_a_gpu():
    cases = {
        (c["recurrence"], c["m"], c["blocks"], c["batch"], c["length"]): c
        for c in record("scan_h100")["cases"]
    }
    seen = 0
    for recurrence, m, blocks in {key[:3] for key in cases} - {("bdlru", 3, 341), ("bdlru", 5, 204)}:
        cells = line(f"| {NAMES[recurrence]} m = {m} | {blocks} |").split("|")[3:6]
        for cell, (batch, length) in zip(cells, SHAPES, strict=True):
            case = cases.get((recurrence, m, blocks, batch, length))
            if case is None:
                assert cell.strip() == "–"
                continue
            expected = [case[way]["percent_of_copy"] for way in ("forward", "backward")]
            assert numbers(cell) == pytest.approx(expected, abs=0.501)
            seen += 1
    assert seen >= 30


def test_decoding():
    rows = {"bdlru": "BD-LRU", "hlru": "H-LRU"}
    for layer in record("decode_h100")["layers"]:
        name = f"| {rows[layer['layer']]} m = {layer['m']} |" if layer["layer"] in rows else "| cuDNN LSTM |"
        row = next(text for text in PAGE.split("## Decoding")[1].splitlines() if text.startswith(name))
        stack, near, far, position = numbers(row.split("|", 2)[2])
        alone = layer["one_layer"]
        expected = [layer["us"]["median"], alone[0]["us"]["median"], alone[-1]["us"]["median"]]
        assert [stack, near, far] == pytest.approx(expected, abs=0.0501)
        assert position == alone[-1]["position"]


def test_the_hosts_time():
    (row,) = (row["us"] for row in record("host_h200")["layers"] if (row["layer"], row["m"]) == ("bdlru", 4))
    for start, call in (
        ("| on a thread", "layer, gradient"),
        ("| on the calling", "layer, gradient, on one thread"),
    ):
        assert numbers(line(start)) == pytest.approx([row[call]["median"]], abs=0.6)
