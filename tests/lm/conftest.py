"""Language models read packs, which need NumPy."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")
pytest.importorskip("filelock")

from statemix.packs import Pack
from tests.lm.small import finish
from tests.packs.small import prepare


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """The held-out split of a small pack of bytes, not to be changed."""
    folder = tmp_path_factory.mktemp("packs") / "pack"
    prepare(folder)
    return Pack(folder, "validation")


@pytest.fixture
def run(pack, tmp_path):
    """A finished run on that pack."""
    return finish(tmp_path / "run", pack)
