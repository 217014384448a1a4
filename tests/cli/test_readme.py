"""The README is true and short: its code runs, its commands run, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import TINY

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
TINY_RUN = [word for word in TINY if not word.startswith("training.eval_lengths")]
SHRUNK = {"train": TINY_RUN, "demo": TINY_RUN}
"""What is added to commands that take long, so that they only take the same way."""


def shrunk(words):
    """The arguments of a command that takes long otherwise."""
    return [*words[1:], *SHRUNK.get(words[1], [])]


def test_every_block_is_understood():
    assert {language for language, _ in BLOCKS} == {"python", "bash", "text"}
    assert len(COMMANDS) + len(TARGETS) == len(LINES)
    assert len(PYTHON) >= 2
    assert [words[1] for words in TARGETS] == ["demo", "lm-demo", "test"]


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
    words = ["make", "-n", *(target for _, target in TARGETS)]
    plan = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert plan.returncode == 0, plan.stderr
    assert "bin/statemix demo" in plan.stdout and "-m pytest" in plan.stdout
    assert "bin/statemix lm train --preset tiny" in plan.stdout


def test_the_page_of_language_models_shows_what_make_runs():
    plan = subprocess.run(["make", "-n", "lm-demo"], capture_output=True, text=True, cwd=ROOT, check=True)
    commands = re.findall(r"bin/(statemix (?:text|lm) .*)", plan.stdout)
    page = (ROOT / "docs" / "language-models.md").read_text()
    assert len(commands) == 4
    assert re.findall(r"^```sh\n(statemix .*)\n```$", page, re.MULTILINE) == commands


def test_what_make_demo_runs(statemix, tmp_path):
    assert "demo/index.html" in README
    done = statemix(shrunk(["statemix", "demo", "--picture", "docs/demo.png"]))
    assert done.code == 0, done.err
    assert (tmp_path / "demo" / "index.html").is_file()
    assert (tmp_path / "docs" / "demo.png").is_file()
    for name in ("demo-diagonal-0", "demo-bdlru-0", "demo-hard-0"):
        assert name in done.out


def test_links_lead_somewhere():
    local = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("https://")]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_extras_named_are_there():
    from importlib.metadata import metadata

    named = set(re.findall(r'"\.\[(\w+)\]"', README))
    assert named <= set(metadata("statemix").get_all("Provides-Extra"))


def test_every_command_is_documented():
    from statemix.cli.app import COMMANDS as known

    pages = README + "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    assert [name for name in [*known, "tasks"] if f"statemix {name}" not in pages] == []


def test_it_is_short():
    assert len(README.splitlines()) <= 120
