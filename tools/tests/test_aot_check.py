"""The GPU kernels compiled without a GPU, for every target, and what they take beside the record of it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton

from statemix.ops.launch import HOPPER, KERNELS
from statemix.ops.triton.gate_norm import CODES
from tools.aot_check import command
from tools.aot_check import record as records
from tools.aot_check.cases import SHAPES, Case
from tools.aot_check.machine import TARGETS, Resources
from tools.aot_check.selection import GATED, cover, covered_by, everything

FILE = Path(__file__).parents[2] / "benchmarks" / "records" / "kernel_resources.json"
PARTS = (slice(9), slice(9, 28), slice(28, None))
"""Tests that share the compiling: the cases that cover most, which are run each time, and the others."""

CASE = Case("sm90", "forward", "bdlru", 4, "bfloat16", HOPPER["bdlru", "forward"][4][0])
"""Some case."""


@pytest.fixture(scope="module")
def recorded():
    return records.read(FILE)


@pytest.mark.parametrize(
    "part", [PARTS[0], *(pytest.param(part, marks=pytest.mark.slow) for part in PARTS[1:])], ids=str
)
def test_kernels_compile_and_take_what_is_recorded(part, recorded, monkeypatch):
    """Every kernel with every compiler and shape of call, every normalisation, every dtype on every target."""
    if not recorded:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cases = cover(recorded)[part]
    wrong = [
        launched if isinstance(launched, str) else list(records.problems(case, launched, recorded))
        for case, launched in command.compile_all(cases, 1)
    ]
    assert [problem for problem in wrong if problem] == []


def test_everything_is_recorded_with_the_pinned_triton(recorded):
    if not recorded:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")
    assert set(recorded) == set(map(str, everything()))


def test_shared_memory_is_within_every_targets_limit(recorded):
    for case, kernels in recorded.items():
        limit = TARGETS[case.partition(" ")[0]].shared
        assert all(took.shared <= limit for took in kernels.values()), case


def test_everything_has_every_launch_size_normalization_and_shape():
    cases = everything()
    assert len(set(cases)) == len(cases)
    for (kernels, direction), rows in HOPPER.items():
        for m, launches in rows.items():
            alike = [
                Case("sm90", direction, recurrence, m, "bfloat16", launch)
                for recurrence in GATED
                if KERNELS[recurrence] == kernels
                for launch in launches
            ]
            assert set(alike) <= set(cases)
    assert {case.m for case in cases if case.launch is not None} == set(range(1, 17))


def test_the_cover_is_small_and_whole(recorded):
    if not recorded:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")
    cases = cover(recorded)
    assert len(cases) < 80
    assert set.union(*(covered_by(case, recorded) for case in cases)) >= {
        ("hopper_forward", "sm90"), ("hopper_backward", "fused"), ("row_step", "hip"), ("gfx942", "float16")
    }  # fmt: skip
    assert {case.normalization for case in cases} == set(CODES)
    assert {case.shape for case in cases} == set(SHAPES)
    assert {case.target for case in cases} == set(TARGETS)
    with pytest.raises(ValueError, match=r"record: got none for Triton .*, expected one, or --all"):
        cover({})


def test_a_part_and_words_select():
    cases = everything()
    parts = [command.select(cases, ",".join(TARGETS), "", f"{k}/4") for k in range(1, 5)]
    assert sorted(str(case) for part in parts for case in part) == sorted(map(str, cases))
    chosen = command.select(cases, "sm90", "forward m=4 bdlru", "1/1")
    assert chosen and all(c[:4] == ("sm90", "forward", "bdlru", 4) for c in chosen)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--targets", "sm42"], "targets: got sm42"),
        (["--part", "3/2"], "part: got '3/2'"),
        (["--part", "x"], "part: got 'x'"),
    ],
)
def test_wrong_arguments(capsys, arguments, words):
    assert command.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_record_comes_back_as_it_was_written(tmp_path):
    path, record = tmp_path / "record.json", {}
    records.enter(record, CASE, [("hopper_forward", Resources(96, 0, 75_376))])
    records.write(path, record)
    assert records.read(path) == record
    assert set(record) == {str(CASE)}
    assert list(tmp_path.iterdir()) == [path]
    records.keep(record, [CASE._replace(m=5)])
    assert record == {}
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"record\.json: not a record"):
        records.read(path)


@pytest.mark.parametrize(
    ("took", "words"),
    [
        (Resources(96, 0, 75_376), None),
        (Resources(100, 0, 75_376), None),
        (Resources(110, 0, 75_376), "recorded is"),
        (Resources(96, 4, 75_376), "recorded is"),
        (Resources(96, 0, 75_000), "recorded is"),
        (Resources(96, 0, 300_000), "300000 bytes of shared memory, sm90 has 232448"),
    ],
)
def test_what_counts_as_wrong(took, words):
    record = {}
    records.enter(record, CASE, [("hopper_forward", Resources(96, 0, 75_376))])
    found = list(records.problems(CASE, [("hopper_forward", took)], record))
    assert (found == []) == (words is None)
    assert words is None or words in found[0]
    (unknown,) = records.problems(CASE._replace(m=5), [("hopper_forward", Resources(96, 0, 1))], record)
    assert "is not recorded" in unknown
    assert list(records.problems(CASE, [("hopper_forward", Resources(96, 9, 1))], {})) == []
