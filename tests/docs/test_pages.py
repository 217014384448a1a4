"""Every page whose code a reader may copy is run, block after block, and prints what it says."""

from __future__ import annotations

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
    "evaluate": ["datasets", "tokenizers", "transformers", "accelerate", "lm_eval", "statemix.hf"],
    "cluster": ["tokenizers", "transformers", "accelerate", "statemix.hf"],
}

SLOW = ("cluster", "distributed", "evaluate", "language-models")
"""Pages that start several processes or train for a while."""


def _cases():
    for page in PAGES:
        yield pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else [])


@pytest.mark.parametrize("page", list(_cases()))
def test_page_runs(page, tmp_path):
    for package in NEEDS.get(page.stem, []):
        pytest.importorskip(package, exc_type=ImportError)
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.page", str(page)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={
            **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "100",
            "HF_HOME": str(tmp_path / "hf"),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_pages_have_code():
    assert len(PAGES) >= 12
    for page in PAGES:
        assert {block.language for block in blocks(page)} & {"python", "bash"}, page.name
