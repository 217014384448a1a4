"""The examples in the docstrings run."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch

from statemix import BDLRU, lm
from statemix.lm import config
from statemix.models import LanguageModel

NAMES = {"torch": torch, "BDLRU": BDLRU, "LanguageModel": LanguageModel, **vars(config), **vars(lm)}
WITH_EXAMPLE = ("LMConfig", "LanguageModelLoss", "chunked_cross_entropy")


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_example_runs(name):
    found = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(lm, name)), dict(NAMES), name, None, None
    )
    assert found.examples
    report = []
    failures, _ = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not failures, "".join(report)


@pytest.mark.parametrize("name", lm.__all__)
def test_everything_public_is_described(name):
    value = getattr(lm, name)
    assert isinstance(value, dict) or len(inspect.getdoc(value).splitlines()) >= 1
