"""The examples in the docstrings of public things run, and print what they say."""

from __future__ import annotations

import doctest
import inspect

import pytest
import torch
from torch import nn

from statemix import models, ops
from statemix import nn as layers
from statemix.nn import MIXERS, mixer

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (ops, layers, models)
    for name in module.__all__
    if inspect.isroutine(getattr(module, name)) or inspect.isclass(getattr(module, name))
} | {"statemix.nn.mixer": mixer}
WITHOUT = {"statemix.models.Backbone"}
"""What is made of others and needs no example."""

NAMES = {
    "torch": torch, "nn": nn, "MIXERS": MIXERS, **{name.split(".")[-1]: thing for name, thing in PUBLIC.items()},
    **{name: getattr(mixer, name) for name in mixer.__all__},
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name, monkeypatch):
    if name == "statemix.ops.explain_backend" or name == "statemix.ops.in_fast_format":
        pytest.importorskip("numba")
    monkeypatch.setattr(MIXERS, "_places", dict(MIXERS._places))
    torch.manual_seed(0)
    text = inspect.getdoc(PUBLIC[name])
    found = doctest.DocTestParser().get_doctest(text, dict(NAMES), name, None, None)
    assert found.examples or name in WITHOUT
    report = []
    failures, _ = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not failures, "".join(report)
