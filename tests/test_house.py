"""The house: what an import brings, one version, complete packaging files, targets that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions, metadata, requires, version
from pathlib import Path

import pytest
import torch

import statemix

ROOT = Path(__file__).parents[1]
INSTALLED = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
"""Where packages are installed: setuptools, once imported, lets its own copies of others be found as well."""

NEW_MODULES = """
import json, sys
import torch
before = set(sys.modules)
import statemix
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
WITHOUT_EXTRAS = """
import sys
EXTRAS = "numba numpy typer rich matplotlib jinja2 safetensors pandas tensorboard triton"
for name in EXTRAS.split():
    sys.modules[name] = None
import torch
import statemix, statemix.models, statemix.tasks
layer = statemix.BDLRU(8, block_size=2, backend="reference")
y, state = layer(torch.ones(1, 3, 8))
print(tuple(y.shape), tuple(state.shape))
"""


def python(code, *arguments):
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names():
    names = {"BDLRU", "HLRU", "bdlru_scan", "hlru_scan", "affine_scan", "bdlru_step", "hlru_step"}
    assert set(statemix.__all__) == names | {"__version__"}
    for name in statemix.__all__:
        assert getattr(statemix, name) is not None


def test_import_brings_nothing_beyond_torch():
    extra = [name for name in json.loads(python(NEW_MODULES)) if name not in sys.stdlib_module_names]
    assert extra == ["statemix"]


def test_core_works_with_torch_alone():
    assert python(WITHOUT_EXTRAS) == "(1, 3, 8) (1, 4, 2)"


def test_one_version():
    assert version("statemix") == statemix.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", statemix.__version__)
    assert "__version__" not in (ROOT / "pyproject.toml").read_text().replace("statemix.__version__", "")


def test_core_requires_torch_alone():
    core = [line for line in requires("statemix") if "extra ==" not in line]
    assert core == ["torch>=2.11"]


def extra_requirements(extra):
    lines = [line for line in requires("statemix") if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return {re.match(r"[A-Za-z0-9_-]+", line).group().lower() for line in lines}


def test_extras():
    assert extra_requirements("cpu") == {"numba"}
    assert extra_requirements("gpu") == {"triton"}
    assert extra_requirements("train") == {"typer", "rich", "safetensors", "tomli"}
    assert extra_requirements("report") == {"matplotlib", "jinja2"}
    assert extra_requirements("cluster") == {"dask"}
    assert extra_requirements("rivals") == {"flash-linear-attention", "accelerated-scan"}
    assert set(metadata("statemix").get_all("Provides-Extra")) == {
        "cpu", "gpu", "train", "tensorboard", "report", "rivals", "cluster", "all", "dev"
    }  # fmt: skip


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_pin_exactly_and_pin_what_is_required():
    assert all(
        re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9.]*(; python_version (>=|<) '3\.11')?", p) for p in pins()
    )
    assert "torch==2.13.0" in pins()
    named = {pin.partition("==")[0] for pin in pins()}
    wanted = {re.match(r"[A-Za-z0-9_-]+", line).group().lower() for line in requires("statemix")}
    assert wanted - {"statemix"} <= named


def test_constraints_are_what_the_tests_run_with():
    if not str(torch.__version__).startswith("2.13.0"):
        pytest.skip("another torch than the pinned one is being tested")
    old = "<" if sys.version_info < (3, 11) else ">="
    for pin in pins():
        requirement, _, marker = pin.partition("; ")
        if marker and old not in marker.split():
            continue
        name, _, pinned = requirement.partition("==")
        for found in distributions(name=name, path=INSTALLED):  # none: not for this Python or system
            assert found.version.partition("+")[0] == pinned, name


def test_licence_is_complete():
    text = (ROOT / "LICENSE").read_text()
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "limitations under the License." in text
    assert [f"\n   {k}. " in text for k in range(1, 10)] == [True] * 9


def test_make_shows_every_target():
    shown = subprocess.run(
        ["make", "--no-print-directory"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    assert sorted(re.findall(r"^make (\w+)", shown.stdout, re.MULTILINE)) == sorted(phony)


def test_make_says_what_it_needs(tmp_path):
    """A Python that is too old: one line that says so."""
    old = tmp_path / "oldpython"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "--no-print-directory", "check", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Python 3.8.1, expected Python 3.10 or newer" in done.stderr


def test_ci_is_executable_and_runs_make_test():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "\nmake test" in (ROOT / ".ci" / "run").read_text()
