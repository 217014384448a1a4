"""The scans in two passes, on the CPU: the float64 yardstick, the checks, the rivals, and what is recorded."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import clock, passes, rivals
from benchmarks.cases import Case, parse_shapes
from benchmarks.exact import corner, exact, relative_rms
from statemix.ops import reference

CPU = torch.device("cpu")
COPY = {"tb_per_s": 0.01}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small copy, and no LSTM in bfloat16, which the CPU takes long over."""
    monkeypatch.setitem(clock.COPY_BYTES, "cpu", 1 << 16)
    monkeypatch.setitem(rivals.RIVALS, "lstm", rivals.RIVALS["lstm"]._replace(dtype=torch.float32))


@pytest.mark.parametrize("recurrence", ["bdlru", "hlru", "affine"])
@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_exact_is_the_loop(recurrence, m, length):
    x = passes.draw(Case(recurrence, m, 2, length, 3), CPU, torch.float64)
    gates, values = x.gates.requires_grad_(), x.values.requires_grad_()
    normalization = "none" if recurrence == "affine" else "softmax"
    states, _ = reference.scan(recurrence, gates, values, x.initial.double(), None, normalization)
    want = (states, *torch.autograd.grad(states, (gates, values), x.grad_states))
    for got, true in zip(exact(recurrence, gates, values, x.grad_states), want, strict=True):
        torch.testing.assert_close(got, true.detach(), rtol=1e-11, atol=1e-12)


def test_corners():
    tensor = torch.arange(5 * 2 * 7).view(5, 2, 7)
    assert torch.equal(corner(tensor), tensor[[0, 4]][:, :, [0, 1, 5, 6]])
    assert corner(torch.zeros(1, 2, 1, 3)).shape == (1, 2, 1, 3)
    assert corner(torch.zeros(1, 2, 3)).shape == (1, 2, 3)


def test_error_is_relative():
    assert relative_rms(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0]).double()) == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru", "affine"])
def test_errors_are_within_the_bounds(recurrence, dtype):
    case = Case(recurrence, 3, 3, 20, 5)
    errors = passes.check(case, passes.draw(case, CPU, passes.DTYPES[dtype]), "reference", dtype)
    assert set(errors) == {"states", "d_gates", "d_values"}
    assert 0 < errors["states"] < passes.BOUNDS[dtype][0]


def test_a_wrong_scan_is_not_timed(monkeypatch):
    right = passes.forward
    monkeypatch.setattr(passes, "forward", lambda *a: tuple(1.01 * x for x in right(*a)))
    (row,) = passes.run([Case("bdlru", 2, 2, 8, 3)], dtype="float32", device=CPU, repeats=1, copy=COPY)
    assert "states: error" in row["failed"]
    assert "forward" not in row


def test_a_scan_that_leaves_something_unwritten_is_not_timed(monkeypatch):
    right = passes.backward

    def forgets(*arguments):
        d_gates, *rest = right(*arguments)
        d_gates[1, 3, 2] = float("nan")  # no corner
        return d_gates, *rest

    monkeypatch.setattr(passes, "backward", forgets)
    (row,) = passes.run([Case("bdlru", 2, 3, 8, 5)], dtype="float32", device=CPU, repeats=1, copy=COPY)
    assert row["failed"].startswith("d_gates: not finite")


def test_record_is_complete():
    copy = clock.copy_bandwidth(CPU, 3)
    assert copy["bytes"] == 2 << 16
    assert copy["tb_per_s"] == pytest.approx(copy["bytes"] / copy["ms"]["median"] / 1e9)
    cases = parse_shapes("bdlru:4,hlru:2", [(2, 16, 8)])
    rows = list(passes.run(cases, dtype="float32", device=CPU, repeats=3, copy=copy))
    others = dict(rivals.run(list(rivals.RIVALS), rows, CPU, 3))
    record = passes.record(
        rows, others, copy=copy, dtype="float32", command="statemix bench scan", device=CPU
    )
    read = json.loads(json.dumps(record))
    wanted = {
        "bench",
        "what",
        "command",
        "date",
        "device",
        "versions",
        "copy",
        "bounds",
        "dtype",
        "cases",
        "rivals",
    }
    assert wanted <= set(read)
    for row, case in zip(read["cases"], cases, strict=True):
        assert [row[field] for field in case._fields] == list(case)
        for name in passes.PASSES:
            timed = row[name]
            ms = timed["ms"]
            assert 0 < ms["min"] <= ms["lower_quartile"] <= ms["median"] <= ms["upper_quartile"]
            assert timed["bytes"] == case.bytes(4)[name]
            speed = timed["bytes"] / ms["median"] / 1e9
            assert timed["percent_of_copy"] == pytest.approx(100 * speed / copy["tb_per_s"])
    assert list(read["rivals"]) == list(rivals.RIVALS)


def test_rivals_say_why_they_are_missing(monkeypatch):
    monkeypatch.setattr("benchmarks.packages.find_spec", lambda name: None if name != "torch" else name)
    rows = list(passes.run([Case("bdlru", 4, 2, 16, 2)], dtype="float32", device=CPU, repeats=1, copy=COPY))
    others = dict(rivals.run(list(rivals.RIVALS), rows, CPU, 1))
    assert others["chunk_hgrn"]["left_out"] == 'not installed: pip install "flash-linear-attention>=0.6.0"'
    assert others["accelerated_scan"]["left_out"] == 'not installed: pip install "accelerated-scan>=0.3.1"'
    assert others["associative_scan_compiled"]["left_out"] == "needs a CUDA device"
    assert others["lstm"]["left_out"] == "no case bdlru:1 was measured"
    ours = rows[0]["both"]["ms"]["median"]
    theirs = others["associative_scan"]
    assert theirs["error"] < 1e-5
    assert theirs["times_ours"] == pytest.approx(theirs["both"]["ms"]["median"] / ours)


def test_a_rival_that_fails_is_recorded(monkeypatch):
    def fail(*_):
        raise KeyError("no such kernel")

    wrong = rivals.RIVALS["associative_scan"]._replace(
        grads=lambda *x: [2 * y for y in rivals.pairs_both(*x)]
    )
    monkeypatch.setitem(rivals.RIVALS, "associative_scan", wrong)
    monkeypatch.setitem(rivals.RIVALS, "lstm", rivals.RIVALS["lstm"]._replace(prepare=fail))
    cases = [Case("bdlru", m, 2, 16, 2) for m in (1, 4)]
    rows = list(passes.run(cases, dtype="float32", device=CPU, repeats=1, copy=COPY))
    others = dict(rivals.run(["associative_scan", "lstm"], rows, CPU, 1))
    assert others["associative_scan"]["failed"].startswith("RuntimeError: wrong: error")
    assert others["lstm"]["failed"] == "KeyError: 'no such kernel'"


def test_choices():
    assert rivals.choose("all") == list(rivals.RIVALS)
    assert rivals.choose("none") == []
    assert rivals.choose("lstm") == ["lstm"]
    with pytest.raises(
        ValueError, match="rivals: got 'mamba', expected all, none or some of associative_scan"
    ):
        rivals.choose("lstm,mamba")
    with pytest.raises(ValueError, match="dtype: got 'int8'"):
        passes.check_dtype("int8")


def test_devices():
    assert clock.resolve_device("cpu") == CPU
    with pytest.raises(ValueError, match="device: got 'tpu', expected 'cpu'"):
        clock.resolve_device("tpu")
    with pytest.raises(ValueError, match="repeats: got 0"):
        clock.check_repeats(0)


def test_sets_push_one_another_out_of_the_cache(monkeypatch):
    monkeypatch.setattr("benchmarks.cuda.cache_bytes", lambda: 60)
    cuda = torch.device("cuda")
    assert [clock.set_count(cuda, size) for size in (1000, 120, 80, 79, 60)] == [2, 2, 3, 4, 4]
    assert clock.set_count(CPU, 1) == 2
