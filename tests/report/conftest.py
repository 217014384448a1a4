"""Real runs for the reports, with test accuracies that are known."""

from __future__ import annotations

import shutil

import pytest

from statemix.report import write_report
from statemix.training import train
from statemix.training.files import read_json, write_json
from tests.training.small import small

ACCURACY = {0: {"6": 0.9, "12": 0.5}, 1: {"6": 0.8, "12": 0.3}, 2: {"6": 1.0, "12": 0.1}}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Real runs, their test accuracies replaced by known ones: three seeds of BD-LRU, one of H-LRU."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        folder = root / f"block-{seed}"
        train(small(f"training.seed={seed}"), folder)
        summary = folder / "summary.json"
        write_json(summary, read_json(summary) | {"accuracy": ACCURACY[seed]})
    train(small("mixer.name=hlru", "mixer.order=2", "mixer.num_channels=3"), root / "order-0")
    return root


@pytest.fixture(scope="session")
def page(trained, tmp_path_factory):
    """The page of all these runs, to be read."""
    return write_report([trained], tmp_path_factory.mktemp("page"))


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")
