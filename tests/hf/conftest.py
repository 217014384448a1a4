"""Tests of `statemix.hf` are left out where transformers is not installed."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers", reason="needs transformers (extra hf)")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """No progress bars, and no look at the hub."""
    from transformers.utils import logging

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logging.disable_progress_bar()
