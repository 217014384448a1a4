"""Sizes and numbers that cannot be are refused by name, before anything is allocated."""

from __future__ import annotations

import os

import pytest

from statemix.training import resolve_config
from statemix.training.resolve import check
from tests.training.small import small

HUGE = "1000000000000000000000000000000"

REFUSED = {
    "model.dim=1000000000": r"model.dim: got 1000000000, expected 1 to 30000",
    "model.dim=200000": r"model.dim: got 200000, expected 1 to 30000",
    f"model.dim={HUGE}": r"model.dim: got 1000",
    "model.depth=10000000": r"model.depth: got 10000000, expected 1 to 10000",
    "mixer.block_size=100000": r"model: got .* weights .*'block_size': 100000.*, expected at most 1e\+10",
    "mixer.block_size=2000000000": r"mixer: got .*2000000000.*, expected a size that can be",
    "mixer.num_blocks=1000000000": r"model: got .* weights .*'num_blocks': 1000000000",
    f"mixer.num_blocks={HUGE}": r"mixer.num_blocks: got 1000",
    "training.steps=1000000000000": r"training.steps: got 1000000000000, expected 1 to 1000000000",
    "training.batch_size=1000000000000": r"training.batch_size: got .* tokens at length 16, expected at most",
    "training.train_examples=1000000000000": r"training.train_examples: got .* tokens at length 16",
    "training.eval_examples=1000000000000": r"training.eval_examples: got .* tokens at length 16",
    "training.eval_lengths=[1000000000]": r"training.eval_examples: got 1280, .* tokens at length 1000000000",
    "training.train_lengths=[1000000000]": r"training.train_examples: got 12800, .* at length 1000000000",
    "task.length=1000000000": r"training.train_examples: got 12800, .* tokens at length 1000000000",
    "mixer.gate_bias=nan": r"mixer.gate_bias: got nan, expected a finite number",
    "mixer.gate_bias=-inf": r"mixer.gate_bias: got -inf, expected a finite number",
    "mixer.transition_bias=inf": r"mixer.transition_bias: got inf, expected a finite number",
    "training.lr=nan": r"training.lr: got nan, expected a finite number",
    "training.betas=[0.9,nan]": r"training.betas: got nan, expected a finite number",
    "training.batch_size=-1": r"training.batch_size: got -1, expected at least 1",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_be_is_refused_at_once(setting):
    with pytest.raises(ValueError, match=REFUSED[setting]) as error:
        resolve_config(overrides=[setting])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["task.vocab_size=1000000000", f"task.vocab_size={HUGE}"])
def test_a_task_too_large_to_be_made(setting):
    with pytest.raises(ValueError, match=r"vocab_size: got 1000\d*, expected (an integer from 5 to|at most)"):
        resolve_config(overrides=["task.name=memorization", setting])


def test_a_vocabulary_too_large_for_any_embedding():
    with pytest.raises(ValueError, match=r"model: got .* weights .*1000000000 tokens"):
        resolve_config(overrides=["task.name=cycle_navigation", "task.modulus=1000000000"])


def test_text_that_no_file_can_hold():
    with pytest.raises(ValueError, match=r"name: got '\\udcff', expected text that UTF-8 can hold"):
        resolve_config(overrides=["name=" + os.fsdecode(b"\xff")])


def test_large_but_possible():
    """A billion weights are a model."""
    check(small("model.dim=8192", "mixer.num_blocks=2048", "model.depth=2"))
