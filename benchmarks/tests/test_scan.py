"""The scan's bench: everyone computes the same, and what is recorded is complete."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import scan
from benchmarks.cases import Case, parse_cases
from benchmarks.contestants import CONTESTANTS
from benchmarks.files import write_json
from benchmarks.timing import interleaved, summarize

CASES = [Case(recurrence, m, 3, 7, 5) for recurrence in ("bdlru", "hlru") for m in (1, 2, 4)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_contestant_is_right(case):
    errors = scan.errors(case)
    assert list(errors) == list(CONTESTANTS)
    assert max(errors.values()) < 2e-6


def test_inputs_have_n_innermost():
    gates, values, grad = scan.draw(CASES[2])
    assert gates.shape == (3, 7, 5, 4, 5)
    assert [x.stride(2) for x in (gates, values, grad)] == [1, 1, 1]


def test_a_wrong_contestant_is_not_timed(monkeypatch):
    wrong = CONTESTANTS["loop"]._replace(scans={"bdlru": lambda gates, values: values * gates[..., 0]})
    monkeypatch.setitem(scan.CONTESTANTS, "associative_scan", wrong)
    with pytest.raises(RuntimeError, match="associative_scan: error"):
        scan.measure(CASES[1], repeats=1)


def test_record_is_complete(tmp_path):
    rows = list(scan.run(CASES[1:2], repeats=3))
    record = scan.record(rows, command="statemix bench scan")
    write_json(tmp_path / "new" / "scan.json", record)
    read = json.loads((tmp_path / "new" / "scan.json").read_text())
    assert {"date", "device", "cores", "threads", "versions", "command", "contestants", "cases"} <= set(read)
    assert read["versions"]["torch"] == torch.__version__
    (row,) = read["cases"]
    assert (row["recurrence"], row["m"], row["batch"], row["length"], row["blocks"]) == ("bdlru", 2, 3, 7, 5)
    for result in row["results"].values():
        ms = result["ms"]
        assert 0 < ms["min"] <= ms["lower_quartile"] <= ms["median"] <= ms["upper_quartile"]
        assert ms["samples"] == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scan.json"]


def test_turns():
    calls = []
    timings = interleaved({name: lambda name=name: calls.append(name) for name in "abc"}, repeats=4)
    assert calls[:6] == list("aabbcc")  # warming up
    assert "".join(calls[6:]) == "aabbccbbccaaccaabbaabbcc"  # untimed, timed; who begins changes
    assert {t["samples"] for t in timings.values()} == {4}


def test_slow_ones_get_fewer_turns():
    timings = interleaved({"a": lambda: None, "b": lambda: None}, repeats=9, budget=0.0)
    assert {t["samples"] for t in timings.values()} == {3}


def test_statistics():
    assert summarize([0.001, 0.002, 0.003, 0.004, 0.010]) == pytest.approx(
        {"median": 3.0, "min": 1.0, "lower_quartile": 2.0, "upper_quartile": 4.0, "samples": 5}
    )
    assert summarize([0.5])["upper_quartile"] == 500


@pytest.mark.parametrize("text", ["", "bdlru", "bdlru:0", "affine:2", "bdlru:x", "bdlru:4,,"])
def test_bad_shapes(text):
    with pytest.raises(ValueError, match="shapes: got"):
        parse_cases(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "cuda"}, "device: got 'cuda', expected 'cpu'"),
        ({"repeats": 0}, "repeats: got 0"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        scan.run(CASES, **arguments)


def test_bad_sizes():
    with pytest.raises(ValueError, match="length: got 0"):
        parse_cases("bdlru:1", length=0)
