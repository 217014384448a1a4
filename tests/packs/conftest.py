"""Packs need the extra `text`; one finished pack that tests copy and damage."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("numpy")

from tests.packs.small import prepare


@pytest.fixture(scope="session")
def untouched(tmp_path_factory):
    """A finished pack, not to be changed."""
    folder = tmp_path_factory.mktemp("packs") / "pack"
    prepare(folder)
    return folder


@pytest.fixture
def folder(untouched, tmp_path):
    """A finished pack of one's own."""
    return shutil.copytree(untouched, tmp_path / "pack")
