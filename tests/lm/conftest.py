"""Language models need the extra `lm`; one small pack and one whole run that tests compare with."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy", reason="needs the extra `lm`")
pytest.importorskip("tokenizers", reason="needs the extra `lm`")

from statemix.packs import Pack
from tests.lm.small import config
from tests.packs.small import prepare


@pytest.fixture(scope="session")
def pack(tmp_path_factory):
    """The folder of a pack of bytes with a validation split."""
    folder = tmp_path_factory.mktemp("lm") / "pack"
    prepare(folder)
    return folder


@pytest.fixture(scope="session")
def whole(pack, tmp_path_factory):
    """The folder of a run that nothing has interrupted."""
    pytest.importorskip("transformers", reason="needs the extra `lm`")
    pytest.importorskip("accelerate", reason="needs the extra `lm`")
    from statemix.lm import train_language_model

    folder = tmp_path_factory.mktemp("lm") / "whole"
    train_language_model(config(pack), folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def held_out(pack):
    """The held-out split of that pack."""
    return Pack(pack, "validation")


@pytest.fixture
def trained(held_out, tmp_path):
    """A run that is over, its model made and not trained, in a folder of its own."""
    pytest.importorskip("safetensors", reason="needs the extra `lm`")
    from tests.lm.trained import leave_run

    return leave_run(tmp_path / "run", held_out)
