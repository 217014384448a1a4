"""The GPU kernels compiled without a GPU, for every target, and what they take beside the record of it.

The compiling happens in processes of their own: there no interpreter stands in for the compiler, and nothing that the
compiler keeps outlives a test.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton

from statemix.ops import NORMALIZATIONS
from statemix.ops.triton.launch_table import HOPPER, KERNELS
from tools.aot_check import command
from tools.aot_check import record as records
from tools.aot_check.cases import SHAPES, Case
from tools.aot_check.machine import TARGETS
from tools.aot_check.resources import Resources
from tools.aot_check.selection import GATED, everything, spread

FILE = Path(__file__).parents[2] / "benchmarks" / "records" / "kernel_resources.json"
PARTS = 2
"""Tests that share the compiling."""

CASE = Case("sm90", "forward", "bdlru", 4, "bfloat16", HOPPER["bdlru", "forward"][4][0])
"""Some case."""


@pytest.fixture(scope="module")
def recorded():
    return records.read(FILE)


def _covers(case, recorded):
    """What compiling a case exercises: each kernel with a compiler and with a shape of call; of the Hopper and of the
    portable kernels, which share theirs, a normalisation; a dtype on a target."""
    kernels = {kernel.partition(" (")[0] for kernel in recorded[records.key_of(case)]}
    compiler = case.target if case.launch else TARGETS[case.target].backend
    return {
        (case.target, case.dtype),
        (case.launch is None, case.direction, case.normalization),
        *((kernel, what) for kernel in kernels for what in (compiler, case.shape)),
    }


def _small_cover(cases, recorded):
    """A few cases that cover what all cover: always the one that adds most, of these the one with the smallest m."""
    chosen, left = [], set().union(*(_covers(case, recorded) for case in cases))
    while left:
        best = max(cases, key=lambda case: (len(_covers(case, recorded) & left), -case.m))
        chosen.append(best)
        left -= _covers(best, recorded)
    return chosen


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_kernels_compile_and_take_what_is_recorded(part, recorded, monkeypatch):
    """Every kernel on every target, for every shape of call and every normalisation that the spread has."""
    if triton.__version__ not in {key.version for key in recorded}:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cases = _small_cover(spread(), recorded)[part - 1 :: PARTS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outcomes = pool.map(command.compile_case, cases)
    wrong = [
        launched if isinstance(launched, str) else list(records.problems(case, launched, recorded))
        for case, launched in outcomes
    ]
    assert [problem for problem in wrong if problem] == []


def test_what_every_run_compiles_is_recorded_with_the_pinned_triton(recorded):
    if triton.__version__ not in {key.version for key in recorded}:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")
    missing = [str(case) for case in spread() if records.key_of(case) not in recorded]
    assert missing == []


def test_shared_memory_is_within_every_targets_limit(recorded):
    for key, kernels in recorded.items():
        assert all(took.shared <= TARGETS[key.target].shared for took in kernels.values()), key


def test_what_the_spread_covers():
    """Every entry of the table as it was measured, every m, normalisation and shape of a call."""
    cases = spread()
    assert len(set(cases)) == len(cases)
    assert set(cases) <= set(everything())
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
    assert {case.normalization for case in cases} == set(NORMALIZATIONS)
    assert {case.shape for case in cases} == set(SHAPES)
    assert {case.target for case in cases} == set(TARGETS)


def test_every_kernel_is_compiled_for_every_dtype_and_target(recorded):
    """Told by the record, which knows the kernels' names."""
    if triton.__version__ not in {key.version for key in recorded}:
        pytest.skip(f"nothing is recorded with Triton {triton.__version__}")

    def kernels(cases):
        """By names without their numbers: "hopper_forward (2)" is its second launch in a call."""
        return {
            (case.target, kernel.partition(" (")[0], case.dtype)
            for case in cases
            for kernel in recorded.get(records.key_of(case), {})
        }

    assert kernels(spread()) == kernels(everything())


def test_a_part_and_words_select():
    cases = spread()
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
    assert set(record) == {records.key_of(CASE)}
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
