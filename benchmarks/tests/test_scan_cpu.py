"""Scans on the CPU: every implementation computes the same, and what is recorded is complete."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import scan_cpu
from benchmarks.measure import Setup
from benchmarks.records import write_record
from benchmarks.shapes import ScanShape

SETUP = Setup(torch.device("cpu"), "float32", 3)
SHAPES = [ScanShape(recurrence, m, 3, 7, 5) for recurrence in ("bdlru", "hlru", "affine") for m in (1, 2, 4)]
SHAPES += [ScanShape(recurrence, 3, 3, 7, 5, hard=True) for recurrence in ("bdlru", "hlru")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_implementation_is_right(shape):
    row = scan_cpu.measure(shape, SETUP._replace(repeats=1))
    assert list(row["results"]) == list(scan_cpu.IMPLEMENTATIONS)
    assert all(0 < result["error"] < 1e-6 for result in row["results"].values())


def test_a_wrong_implementation_is_not_timed(monkeypatch):
    what, fast, _ = scan_cpu.IMPLEMENTATIONS["loop"]
    wrong = (what, fast, lambda recurrence, gates, values, **_: values * gates[..., 0])
    monkeypatch.setitem(scan_cpu.IMPLEMENTATIONS, "associative_scan", wrong)
    with pytest.raises(RuntimeError, match="associative_scan: states: error"):
        scan_cpu.measure(SHAPES[1], SETUP)


def test_record_is_complete(tmp_path):
    rows = [SHAPES[1]._asdict() | scan_cpu.measure(SHAPES[1], SETUP)]
    write_record(tmp_path / "new" / "scan.json", scan_cpu.new_record() | {"cases": rows})
    read = json.loads((tmp_path / "new" / "scan.json").read_text())
    wanted = "bench what command date device cores threads versions implementations cases"
    assert set(wanted.split()) <= set(read)
    assert read["versions"]["torch"] == torch.__version__
    (row,) = read["cases"]
    assert (row["recurrence"], row["m"], row["batch"], row["length"], row["blocks"]) == ("bdlru", 2, 3, 7, 5)
    for result in row["results"].values():
        ms = result["ms"]
        assert 0 < ms["min"] <= ms["lower_quartile"] <= ms["median"] <= ms["upper_quartile"]
        assert ms["samples"] == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scan.json"]
