"""The house: what an import brings, the size of the code, public names, packaging, targets that exist."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distributions, requires, version
from pathlib import Path

import pytest
import torch

import statemix

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


PUBLIC = (
    "statemix", "statemix.ops", "statemix.nn", "statemix.models", "statemix.tasks", "statemix.training",
    "statemix.analysis", "statemix.report", "statemix.cli", "statemix.nn.mixer", "statemix.training.files",
    "statemix.ops.launch", "statemix.text", "statemix.extras", "statemix.waiting", "statemix.timing",
    "statemix.packs", "statemix.hf", "statemix.lm",
)  # fmt: skip
"""Modules whose names others may import: those in `__all__`, else those without an underscore that they define."""


def public_names(module):
    """{name: object} of a public module."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }


def test_no_two_public_things_share_a_name():
    found = [importlib.import_module(name) for name in PUBLIC if importlib.util.find_spec(name) is not None]
    owners = {}
    for module in found:
        for name, value in public_names(module).items():
            owners.setdefault(name, {})[id(value)] = module.__name__
    assert {name: list(those.values()) for name, those in owners.items() if len(those) > 1} == {}
    assert set(statemix.__all__) >= {"BDLRU", "HLRU", "bdlru_scan", "hlru_scan", "affine_scan"}


def sources(*folders):
    """The Python files of some folders, tests left aside, with their text."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path: path.read_text() for path in paths if "tests" not in path.relative_to(ROOT).parts}


LINES = {"src/statemix": 23_510, "research benchmarks tools": 14_200}
"""The most lines of Python, tests left aside. A limit rises only with what a feature adds."""


@pytest.mark.parametrize("folders", LINES)
def test_the_code_stays_small(folders):
    assert sum(text.count("\n") for text in sources(*folders.split()).values()) <= LINES[folders]


def test_functions_and_files_stay_short():
    lengths, long = [], []
    for path, text in sources("src", "research", "benchmarks", "tools").items():
        if text.count("\n") > 400:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths.append(node.end_lineno - node.lineno + 1)
                if lengths[-1] > (100 if "triton" in path.parts else 80):
                    long.append(f"{path}: {node.name}")
    assert long == []
    assert statistics.median(lengths) <= 10


def test_the_wheel_holds_the_library_alone(tmp_path):
    for name in ("src/statemix", "research", "benchmarks", "tools"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "records", "results")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    names = zipfile.ZipFile(tmp_path / done.stdout.splitlines()[-1]).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "statemix",
        f"statemix-{statemix.__version__}.dist-info",
    }
    assert {"statemix/report/templates/page.html", "statemix/py.typed"} <= set(names)


def test_import_brings_nothing_beyond_torch():
    extra = [name for name in json.loads(python(NEW_MODULES)) if name not in sys.stdlib_module_names]
    assert extra == ["statemix"]


IMPORT_TIME = """
import time, torch
began = time.process_time()
import statemix
print(time.process_time() - began)
"""


@pytest.mark.slow
def test_import_costs_little_beyond_torch():
    """30 ms on an idle machine; half as much again where other processes share its cores."""
    assert min(float(python(IMPORT_TIME)) for _ in range(5)) <= 0.045


def test_core_works_with_torch_alone():
    assert python(WITHOUT_EXTRAS) == "(1, 3, 8) (1, 4, 2)"


def test_one_version():
    assert version("statemix") == statemix.__version__
    research = (ROOT / "research" / "pyproject.toml").read_text()
    assert f'version = "{statemix.__version__}"' in research


def test_core_requires_torch_alone():
    core = [line for line in requires("statemix") if "extra ==" not in line]
    assert core == ["torch>=2.11"]


def test_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra: {re.match(r"[A-Za-z0-9_-]+", line).group().lower() for line in lines}
        for extra, lines in extras.items()
    }
    assert named["cpu"] == {"numba"}
    assert named["gpu"] == {"triton"}
    assert named["train"] == {"typer", "rich", "safetensors", "tomli"}
    assert named["report"] == {"matplotlib", "jinja2", "pandas"}
    assert named["hf"] == {"transformers"}
    assert named["text"] == {"datasets", "tokenizers", "numpy", "filelock"}
    assert named["lm"] == {"statemix", "accelerate"}
    assert named["eval"] == {"lm-eval"}
    rest = {"tensorboard", "docs", "all", "dev"}
    assert named.keys() == {"cpu", "gpu", "train", "report", "text", "hf", "lm", "eval"} | rest


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_pin_exactly_and_pin_what_is_required():
    assert all(
        re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*(; python_version (>=|<) '3\.11')?", p) for p in pins()
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


def test_make_shows_every_target():
    shown = subprocess.run(
        ["make", "--no-print-directory"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    named = re.findall(r"^make ([\w-]+)", shown.stdout, re.MULTILINE)
    assert set(phony) - set(named) <= {"tests"}  # a part of `test`
    assert set(named) <= set(phony)


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
