"""The examples in the docstrings run, and print what they say; what is installed and what is not."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys

import pytest
import torch

from statemix import BDLRU, hf
from statemix.models import LanguageModel

PUBLIC = {name: getattr(hf, name) for name in hf.__all__ if inspect.isroutine(getattr(hf, name)) or
          inspect.isclass(getattr(hf, name))}  # fmt: skip
WITH_EXAMPLE = {
    "StatemixCache", "StatemixConfig", "StatemixForCausalLM", "StatemixModel", "config_of", "from_language_model"
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name):
    names = {**vars(hf), "torch": torch, "BDLRU": BDLRU, "LanguageModel": LanguageModel}
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(PUBLIC[name]), names, name, None, None)
    assert bool(found.examples) == (name in WITH_EXAMPLE)
    report = []
    failures, _ = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not failures, "".join(report)


WITHOUT = """
import sys
sys.modules["transformers"] = None
try:
    import statemix.hf
except ImportError as error:
    print(error)
"""


def test_without_transformers():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        'transformers is not installed: pip install "transformers>=5.17" '
        '(from a clone of statemix: pip install -e ".[hf]")'
    )
