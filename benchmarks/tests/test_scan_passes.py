"""The scans in two passes, on the CPU: float64, the checks, the baselines, and what is recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import measure, scan_baselines, scan_passes
from benchmarks.affine import corner, float64_scan
from benchmarks.measure import attempt, choose
from benchmarks.shapes import ScanShape, parse_shapes
from statemix.ops import affine_scan, bdlru_scan, hlru_scan

CPU = torch.device("cpu")
COPY = {"tb_per_s": 0.01}
SETUP = measure.Setup(CPU, "float32", 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small copy."""
    monkeypatch.setitem(measure.COPY_BYTES, "cpu", 1 << 16)


@pytest.mark.parametrize("recurrence", ["bdlru", "hlru", "affine", "bdlru hard", "hlru hard"])
@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_float64_is_the_loop(recurrence, m, length):
    recurrence, _, hard = recurrence.partition(" ")
    options = {"hard": True} if hard else {}
    x = scan_passes.draw(ScanShape(recurrence, m, 2, length, 3), CPU, torch.float64)
    gates, values = x.gates.requires_grad_(), x.values.requires_grad_()
    scan = {"bdlru": bdlru_scan, "hlru": hlru_scan, "affine": affine_scan}[recurrence]
    states, _ = scan(gates, values, backend="reference", **options)
    want = (states, *torch.autograd.grad(states, (gates, values), x.grad_states))
    for got, true in zip(
        float64_scan(recurrence, gates, values, x.grad_states, **options), want, strict=True
    ):
        torch.testing.assert_close(got, true.detach(), rtol=1e-11, atol=1e-12)


def test_corners():
    tensor = torch.arange(5 * 2 * 7).view(5, 2, 7)
    assert torch.equal(corner(tensor), tensor[[0, 4]][:, :, [0, 1, 5, 6]])
    assert corner(torch.zeros(1, 2, 1, 3)).shape == (1, 2, 1, 3)
    assert corner(torch.zeros(1, 2, 3)).shape == (1, 2, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru", "affine"])
def test_errors_are_within_the_bounds(recurrence, dtype):
    for case in scan_passes.beside_hard([ScanShape(recurrence, 3, 3, 20, 5)]):
        x = scan_passes.draw(case, CPU, measure.DTYPES[dtype])
        errors = scan_passes.check(case, x, "reference", dtype)
        assert set(errors) == {"states", "d_gates", "d_values"}
        assert (0 if case.hard else 1e-9) <= errors["states"] < scan_passes.BOUNDS[dtype][0]


def test_hard_rows_stand_beside_soft_ones():
    shapes = parse_shapes("bdlru:4,affine:2", [(2, 16, 8)])
    assert [(shape.recurrence, shape.hard) for shape in scan_passes.beside_hard(shapes)] == [
        ("bdlru", False), ("bdlru", True), ("affine", False)
    ]  # fmt: skip
    assert str(scan_passes.beside_hard(shapes)[1]) == "bdlru:4 2×16×2 hard"


def test_a_wrong_scan_is_not_timed(monkeypatch):
    right = scan_passes.forward
    monkeypatch.setattr(scan_passes, "forward", lambda *a: tuple(1.01 * x for x in right(*a)))
    row = attempt({}, CPU, lambda: scan_passes.measure(ScanShape("bdlru", 2, 2, 8, 3), SETUP, COPY))
    assert "states: error" in row["failed"]
    assert "forward" not in row


def test_a_scan_that_leaves_something_unwritten_is_not_timed(monkeypatch):
    right = scan_passes.backward

    def forgets(*arguments):
        d_gates, *rest = right(*arguments)
        d_gates[1, 3, 2] = float("nan")  # no corner
        return d_gates, *rest

    monkeypatch.setattr(scan_passes, "backward", forgets)
    row = attempt({}, CPU, lambda: scan_passes.measure(ScanShape("bdlru", 2, 3, 8, 5), SETUP, COPY))
    assert row["failed"].startswith("RuntimeError: d_gates: not finite")


def test_record_is_complete():
    copy = measure.copy_bandwidth(SETUP)
    assert copy["bytes"] == 2 << 16
    assert copy["tb_per_s"] == pytest.approx(copy["bytes"] / copy["ms"]["median"] / 1e9)
    shapes = parse_shapes("bdlru:4,hlru:2", [(2, 16, 8)])
    rows = [shape._asdict() | scan_passes.measure(shape, SETUP, copy) for shape in shapes]
    others = {name: scan_baselines.run_baseline(name, rows, SETUP) for name in scan_baselines.BASELINES}
    record = scan_passes.new_record(SETUP, copy) | {"cases": rows, "baselines": others}
    read = json.loads(json.dumps(record))
    wanted = "bench what command date device versions passes dtype bounds copy cases baselines"
    assert set(wanted.split()) <= set(read)
    for row, shape in zip(read["cases"], shapes, strict=True):
        for name in scan_passes.PASSES:
            timed, ms = row[name], row[name]["ms"]
            assert 0 < ms["min"] <= ms["lower_quartile"] <= ms["median"] <= ms["upper_quartile"]
            assert timed["bytes"] == shape.bytes(4)[name]
            speed = timed["bytes"] / ms["median"] / 1e9
            assert timed["percent_of_copy"] == pytest.approx(100 * speed / copy["tb_per_s"])
    assert list(read["baselines"]) == list(scan_baselines.BASELINES)


def test_baselines_say_why_they_are_skipped(monkeypatch):
    monkeypatch.setattr("benchmarks.measure.installed", lambda name: name == "torch")
    shape = ScanShape("bdlru", 4, 2, 16, 2)
    rows = [shape._asdict() | scan_passes.measure(shape, SETUP._replace(repeats=1), COPY)]
    others = {name: scan_baselines.run_baseline(name, rows, SETUP) for name in scan_baselines.BASELINES}
    assert others["chunk_hgrn"]["skipped"] == 'not installed: pip install "flash-linear-attention>=0.6.0"'
    assert others["accelerated_scan"]["skipped"] == 'not installed: pip install "accelerated-scan>=0.3.1"'
    assert others["associative_scan_compiled"]["skipped"] == "needs a CUDA device"
    assert (
        scan_baselines.run_baseline("associative_scan", [], SETUP)["skipped"]
        == "no shape bdlru:4 was measured"
    )
    found, own = others["associative_scan"], rows[0]["both"]["ms"]["median"]
    assert found["error"] < 1e-5
    assert found["relative_time"] == pytest.approx(found["both"]["ms"]["median"] / own)


def test_a_baseline_that_fails_is_recorded(monkeypatch):
    right = scan_baselines.BASELINES["associative_scan"]
    shape = ScanShape("bdlru", 4, 2, 16, 2)
    rows = [shape._asdict() | {"both": {"ms": {"median": 1.0}}}]

    def fail(*_):
        raise KeyError("no such kernel")

    for both, words in (
        (lambda *x: [2 * y for y in right.both(*x)], "RuntimeError: states: error"),
        (fail, "KeyError"),
    ):
        monkeypatch.setitem(scan_baselines.BASELINES, "associative_scan", replace(right, both=both))
        assert scan_baselines.run_baseline("associative_scan", rows, SETUP)["failed"].startswith(words)


def test_scalar_scans_are_made_from_gates_and_back(monkeypatch):
    """With a plain loop in place of the kernels of other packages."""

    def loop(a, b):
        states, h = [], torch.zeros_like(b[..., 0])
        for t in range(b.shape[-1]):
            h = a[..., t] * h + b[..., t]
            states.append(h)
        return torch.stack(states, -1)

    def hgrn(x, log_gates):
        return loop(log_gates.exp().transpose(1, 2), x.transpose(1, 2)).transpose(1, 2)

    for name, scan in (("accelerated_scan", loop), ("chunk_hgrn", hgrn)):
        baseline = replace(scan_baselines.BASELINES[name], scan=scan, dtype=torch.float32)
        assert scan_baselines.check(baseline, ScanShape("bdlru", 1, 2, 9, 5), CPU) < 1e-6
        for call in scan_baselines.make_calls(baseline, ScanShape("bdlru", 1, 2, 9, 5), CPU).values():
            call()


def test_choices():
    known = scan_baselines.BASELINES
    assert choose("all", known) == list(known)
    assert choose("none", known) == []
    assert choose("chunk_hgrn", known) == ["chunk_hgrn"]
    with pytest.raises(
        ValueError, match="baselines: got 'mamba', expected all, none or some of associative_scan"
    ):
        choose("chunk_hgrn,mamba", known)
