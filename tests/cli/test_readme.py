"""The README is true: its code runs, its commands run, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
LINES = [
    shlex.split(line, comments=True)
    for language, code in BLOCKS
    if language in ("bash", "console")
    for line in code.splitlines()
    if line.strip()
]
COMMANDS = [words for words in LINES if words[0] == "statemix"]
TARGETS = [words for words in LINES if words[0] == "make"]
TINY_RUN = [
    "training.steps=4", "training.warmup=1", "training.batch_size=8", "training.train_examples=16",
    "training.eval_examples=8", "model.dim=16", "model.depth=1",
]  # fmt: skip
SHRUNK = {
    "train": TINY_RUN,
    "demo": TINY_RUN,
    "bench": ["--batch", "2", "--length", "8", "--blocks", "4"],
}
"""What is added to commands that take long, so that they only take the same way."""


def shrunk(words):
    """The arguments of a command that takes long otherwise."""
    return [*words[1:], *SHRUNK.get(words[1], [])]


def test_every_block_is_understood():
    assert {language for language, _ in BLOCKS} == {"python", "bash", "text"}
    assert len(COMMANDS) + len(TARGETS) == len(LINES)
    assert len(PYTHON) >= 3
    assert [words[1] for words in TARGETS] == ["demo", "test"]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_commands_one_after_another(statemix):
    for words in COMMANDS:
        done = statemix(shrunk(words))
        assert done.code == 0, (words, done.err)
        assert done.out.strip(), words


def test_make_targets_resolve():
    for _, target in TARGETS:
        plan = subprocess.run(["make", "-n", target], capture_output=True, text=True, cwd=ROOT, check=False)
        assert plan.returncode == 0, plan.stderr
        assert {"demo": "bin/statemix demo", "test": "-m pytest"}[target] in plan.stdout


def test_what_make_demo_runs(tmp_path):
    assert "demo/index.html" in README
    words = shrunk(["statemix", "demo", "--picture", "docs/demo.png"])
    done = subprocess.run(
        [sys.executable, "-m", "statemix.cli", *words], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo" / "index.html").is_file()
    assert (tmp_path / "docs" / "demo.png").is_file()
    for name in ("demo-diagonal-0", "demo-bdlru-0", "demo-hlru-0"):
        assert name in done.stdout


def test_links_lead_somewhere():
    local = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("https://")]
    ready = [link for link in local if link != "docs/demo.png"]
    assert [link for link in ready if not (ROOT / link).exists()] == []


def test_extras_named_are_there():
    from importlib.metadata import metadata

    named = set(re.findall(r'"\.\[(\w+)\]"', README))
    assert named <= set(metadata("statemix").get_all("Provides-Extra"))


def test_every_command_is_shown():
    from statemix.cli.app import COMMANDS as known

    for name in [*known, "tasks", "bench", "experiment"]:
        assert f"statemix {name}" in README


def test_the_figures_of_speed_are_the_recorded_ones():
    recorded = json.loads((ROOT / "benchmarks" / "scan_cpu.json").read_text())
    assert recorded["command"] in README
    for case in recorded["cases"]:
        name = {"bdlru": "BD-LRU", "hlru": "H-LRU"}[case["recurrence"]]
        line = next(line for line in README.splitlines() if line.startswith(f"| {name}, m = {case['m']} |"))
        medians = [case["results"][who]["ms"]["median"] for who in recorded["contestants"]]
        told = [float(number) for number in re.findall(r"[\d.]+", line.partition("|")[2].partition("|")[2])]
        expected = [medians[0]] + [value for ms in medians[1:] for value in (ms, ms / medians[0])]
        assert told == pytest.approx(expected, rel=6e-3)
