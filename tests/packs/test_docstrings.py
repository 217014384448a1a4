"""The examples in the docstrings run, and everything public is described."""

from __future__ import annotations

import doctest
import inspect

import pytest

from statemix import packs

PUBLIC = {
    name: getattr(packs, name)
    for name in packs.__all__
    if inspect.isroutine(getattr(packs, name)) or inspect.isclass(getattr(packs, name))
}
WITH_EXAMPLE = {"Batches", "ByteTokenizer", "Pack", "build_source", "load_tokenizer", "prepare_pack"}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name):
    found = doctest.DocTestParser().get_doctest(
        inspect.getdoc(PUBLIC[name]), vars(packs) | {}, name, None, None
    )
    assert bool(found.examples) == (name in WITH_EXAMPLE)
    report = []
    failures, _ = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert not failures, "".join(report)
