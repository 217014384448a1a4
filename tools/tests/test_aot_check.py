"""The GPU kernels compiled without a GPU, for every target, and what they take beside the record of it.

The compiling happens in processes of their own: there no interpreter stands in for the compiler, and nothing that the
compiler keeps outlives a test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton

from statemix.ops.normalization import NORMALIZATIONS
from statemix.ops.triton import table
from tools.aot_check import command
from tools.aot_check import record as records
from tools.aot_check.cases import SHAPES, Case
from tools.aot_check.machine import TARGETS
from tools.aot_check.resources import Resources
from tools.aot_check.selection import GATED, everything, spread

FILE = Path(__file__).parents[2] / "benchmarks" / "records" / "kernel_resources.json"
PARTS, SHARE = 4, 3
"""Compiling takes minutes: a test run compiles one call in `SHARE` of the spread, in `PARTS` tests."""

CASE = Case("sm90", "forward", "bdlru", 4, "bfloat16", table.HOPPER["block", "forward"][4][0])
"""Some case."""


@pytest.fixture(scope="module")
def recorded():
    return records.read(FILE)


@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_kernels_compile_and_take_what_is_recorded(part):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    line = [
        sys.executable,
        "-m",
        "tools.aot_check",
        "--check",
        str(FILE),
        "--part",
        f"{part}/{PARTS * SHARE}",
    ]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


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
    for (kind, direction), rows in table.HOPPER.items():
        for m, launches in rows.items():
            alike = [
                Case("sm90", direction, recurrence, m, "bfloat16", launch)
                for recurrence in GATED
                if table.KINDS[recurrence] == kind
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
        """ "forward (2)" is the second launch of "forward" in a call."""
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
    records.enter(record, CASE, [("forward", Resources(96, 0, 75_376))])
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
    records.enter(record, CASE, [("forward", Resources(96, 0, 75_376))])
    found = list(records.problems(CASE, [("forward", took)], record))
    assert (found == []) == (words is None)
    assert words is None or words in found[0]
    (unknown,) = records.problems(CASE._replace(m=5), [("forward", Resources(96, 0, 1))], record)
    assert "is not recorded" in unknown
    assert list(records.problems(CASE, [("forward", Resources(96, 9, 1))], {})) == []
