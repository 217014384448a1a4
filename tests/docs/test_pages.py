"""Every page whose code a reader may copy is run, block after block, and prints what it says."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.page import blocks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / "quickstart.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
NEEDS = {
    "adapters": ["peft", "torchao"],
    "huggingface": ["transformers", "peft", "typer"],
    "text": ["datasets", "tokenizers"],
    "language-models": ["transformers", "accelerate", "datasets", "tokenizers"],
    "evaluate": ["datasets", "tokenizers", "transformers", "accelerate", "lm_eval"],
    "cluster": ["tokenizers", "transformers", "accelerate"],
}

SLOW = ("cluster", "distributed", "evaluate", "language-models")
"""Pages that start several processes or train for a while."""


def _installed(page):
    """Whether every package that a page needs is there."""
    return all(importlib.util.find_spec(package) for package in NEEDS.get(page.stem, ()))


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["short", "slow"])
def test_pages_run(slow, tmp_path):
    """One test for all pages, so that what they import is imported once however many workers run the tests."""
    pages = [page for page in PAGES if (page.stem in SLOW) == slow]
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.page", *(str(page) for page in pages if _installed(page))],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "100",
            "HF_HOME": str(tmp_path / "hf"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [page.name for page in pages if not _installed(page)]
    if left:
        pytest.skip(f"packages are missing for {', '.join(left)}; the other pages ran")


def test_pages_have_code():
    assert len(PAGES) >= 12
    for page in PAGES:
        assert {block.language for block in blocks(page)} & {"python", "bash"}, page.name
