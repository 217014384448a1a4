"""The examples in the docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch

from statemix import BDLRU, lm, models, packs
from statemix.lm import config

HF = {"harness_model", "fast_tokenizer"}
WITHOUT = {
    "ContextLoss", "Evaluation", "Loaded", "Rates", "Sampling", "as_hugging_face", "build_language_model",
    "count_flops", "folder_tokenizer", "load_language_model", "load_model", "open_pack", "resolve_lm_config",
    "run_tasks", "train_language_model",
}  # fmt: skip
"""What needs a run, or is shown by what uses it."""

PUBLIC = {name: getattr(lm, name) for name in lm.__all__ if callable(getattr(lm, name))}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name):
    names = {**vars(config), **vars(models), **vars(packs), **vars(lm), "BDLRU": BDLRU, "torch": torch}
    if name in HF:
        pytest.importorskip("lm_eval", reason="needs the extra eval")
        hf = pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)
        names |= vars(hf)
    torch.manual_seed(0)
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(PUBLIC[name]), names, name, None, None)
    assert bool(found.examples) == (name not in WITHOUT)
    report = []
    failures, _ = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not failures, "".join(report)


def test_parts_of_a_text():
    from statemix.lm import streaming

    assert doctest.testmod(streaming, verbose=False).failed == 0
