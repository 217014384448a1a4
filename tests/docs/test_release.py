"""What a release says of itself, and what it does in clean environments (`pytest -m slow`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import statemix

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

ROOT = Path(__file__).parents[2]


def test_metadata():
    project = toml.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["authors"] == [{"name": "statemix contributors"}]
    pythons = {one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r"Python :: 3\.\d", one)}
    assert pythons == {"3.10", "3.11", "3.12", "3.13"}
    assert all(url.startswith("https://") for url in project["urls"].values())


def test_one_version_everywhere():
    version = statemix.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{version}"' in (ROOT / "research" / "pyproject.toml").read_text()


def test_package_data_exists():
    line = re.search(r"package-data\]\n\"\*\" = \[(.*)\]", (ROOT / "pyproject.toml").read_text()).group(1)
    for pattern in re.findall(r'"([^"]+)"', line):
        assert list((ROOT / "src").rglob(pattern)), f"nothing matches {pattern}"


def test_the_workflow_takes_every_python_and_both_ends_of_torch():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    matrix = jobs["versions"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    lowest = re.search(r"torch>=([\d.]+)", (ROOT / "pyproject.toml").read_text()).group(1)
    assert matrix["torch"] == [f"torch=={lowest}.*", "torch"]
    assert any(
        "make test" in step.get("run", "") for step in jobs["pinned"]["steps"]
    )  # it builds the site, too


@pytest.mark.slow
def test_wheel_and_source_archive_in_clean_environments():
    """Takes minutes and downloads torch."""
    done = subprocess.run(
        [ROOT / ".ci" / "release", "-q", "tests/ops/test_laws.py", "tests/tasks"],
        capture_output=True, text=True, check=False, env={"PYTHON": sys.executable, **os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(2, 64) (2, 16, 4)" in done.stdout
