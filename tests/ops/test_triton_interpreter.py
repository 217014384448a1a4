"""The portable Triton kernels, run on the CPU by Triton's interpreter.

The interpreter must be chosen before the first kernel is imported, and then holds for the whole process: the tests
themselves are in `FILES` and run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
FILES = ("tests/ops/interpreted.py", "tests/ops/interpreted_fused.py")
PARTS = (("definition", "every_m", "fused"), ("memory", "laws"))
"""Each in a process, by how the names of its tests begin."""


@pytest.mark.parametrize("part", PARTS, ids=" ".join)
def test_in_the_interpreter(part):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [
        "-W",
        "ignore::RuntimeWarning",
    ]  # numpy warns of what a GPU computes in silence: inf - inf and the like
    command += ["-k", " or ".join(f"test_{name}" for name in part), *FILES]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_the_parts_are_all_of_it():
    text = "\n".join((ROOT / file).read_text() for file in FILES)
    names = [line.split("(")[0][9:] for line in text.splitlines() if line.startswith("def test_")]
    assert names
    assert all(name.startswith(sum(PARTS, ())) for name in names)
