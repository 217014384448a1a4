"""What is said of packages that are not installed, and the core without them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from statemix.extras import PACKAGES, install, installed, missing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def test_requirements_are_those_of_the_extras():
    brought = {}
    for place in (".", "./research"):
        project = tomllib.loads((ROOT / place / "pyproject.toml").read_text())["project"]
        for extra, requirements in project["optional-dependencies"].items():
            brought |= {(one.partition(";")[0].strip(), f"{place}[{extra}]"): extra for one in requirements}
    described = {(package.requirement, package.extra) for package in PACKAGES.values()}
    assert described <= brought.keys()
    assert [
        one
        for one, extra in brought.items()
        if extra not in ("all", "dev", "docs")
        and one not in described
        and not one[0].startswith("statemix[")  # other extras
    ] == []


def test_what_is_said():
    assert install("typer", "rich") == 'pip install "typer>=0.26" "rich>=13.7"'
    assert missing("distributed") == (
        'dask[distributed] is not installed: pip install "dask[distributed]>=2026.8"'
        ' (from a clone of statemix: pip install -e "./research[cluster]")'
    )


@pytest.mark.parametrize("folder", ["src", "research", "benchmarks", "docs", "README.md", "examples"])
def test_nobody_is_told_to_install_the_name_from_an_index(folder):
    place = ROOT / folder
    files = (
        [place] if place.is_file() else [*place.rglob("*.py"), *place.rglob("*.md"), *place.rglob("*.html")]
    )
    assert [str(p) for p in files if re.search(r"pip install [\"']?statemix", p.read_text())] == []


def test_modules_that_are_not_there(monkeypatch):
    assert installed("torch") and not installed("no_such_module")
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not installed("numpy")


CORE = """
import sys
blocked = {"typer", "rich", "click", "safetensors", "numba", "llvmlite", "numpy", "matplotlib", "jinja2",
           "pandas", "tomli"}
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refusing())
import importlib.util
true = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in blocked else true(name, *rest)
import statemix
import torch
x = torch.randn(1, 5, 8)
statemix.BDLRU(8, block_size=2)(x)[0].sum().backward()
import statemix.cli
for words in (["doctor"], ["tasks"]):
    sys.argv = ["statemix", *words]
    print("exit", statemix.cli.main())
"""


def test_the_core_alone():
    """No package but torch: no warning of NumPy's, layers run, `doctor` works and the command says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", CORE], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("checking every backend"), done.stderr
    assert lines[1].startswith('error: the command needs typer and rich: pip install "typer>=')
    assert 'pip install -e ".[train]"' in lines[1] and "statemix doctor" in lines[1]
    assert len(lines) == 2
    assert "exit 0" in done.stdout and done.stdout.endswith("exit 1\n")
    assert re.search(r"^cpu +reference +bdlru +float32 .* ok$", done.stdout, re.MULTILINE)
    assert "WRONG" not in done.stdout
