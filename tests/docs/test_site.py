"""The site builds without a warning, from what is in the repository alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_it_builds_strictly_and_whole():
    """One test, so that the site is built once however many workers run the tests; it stays in build/site."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = ROOT / "build" / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    check_every_page_is_there(folder)
    check_it_loads_nothing_from_elsewhere(folder)
    check_the_reference_shows_every_public_name(folder)


def check_every_page_is_there(site):
    pages = list((ROOT / "docs").rglob("*.md"))
    names = [page.relative_to(ROOT / "docs").with_suffix("") for page in pages]
    built = [site / ("" if name.name == "index" else name.name) for name in names if len(name.parts) == 1]
    built += [
        site / name.parent / ("" if name.name == "index" else name.name)
        for name in names
        if len(name.parts) > 1
    ]
    assert [str(folder) for folder in built if not (folder / "index.html").is_file()] == []


def check_it_loads_nothing_from_elsewhere(site):
    """No font, script, style sheet or picture of another server: it reads the same without a network."""
    loads = re.compile(
        r"<(?:script|img|source|iframe)[^>]*\ssrc=\"(?:https?:)?//"
        r"|<link[^>]*stylesheet[^>]*href=\"(?:https?:)?//"
    )
    assert [page.name for page in site.rglob("*.html") if loads.search(page.read_text())] == []


def check_the_reference_shows_every_public_name(site):
    import statemix.hf
    import statemix.lm
    import statemix.models
    import statemix.nn
    import statemix.ops
    import statemix.packs
    import statemix.tasks

    modules = (
        statemix.ops, statemix.nn, statemix.models, statemix.tasks, statemix.packs, statemix.hf, statemix.lm,
    )  # fmt: skip
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        text = (site / "api" / name / "index.html").read_text()
        assert [one for one in module.__all__ if f'id="{module.__name__}.{one}"' not in text] == []


def test_pictures_are_what_the_script_draws(tmp_path):
    folder = ROOT / "docs" / "kernels"
    script = tmp_path / "draw.py"
    script.write_text((folder / "draw.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True)
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text() for path in folder.glob("*.svg")}
    page = (ROOT / "docs" / "kernels.md").read_text()
    assert [name for name in drawn if name not in page] == []
