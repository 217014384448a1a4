"""Planning is cheap: sizes without values, one configuration for all rates and seeds, no compiler of torch's."""

from __future__ import annotations

import pytest
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.source import plan_in_store, read_results
from statemix_research.sweeps import Store, make_plan
from statemix_research.sweeps.grid import resolved
from statemix_research.sweeps.models import MAX_WIDTH, nearest_width
from statemix_research.sweeps.store import key_of

COUNTS = {
    "a line": lambda width: 10 * width + 3,
    "a parabola": lambda width: 3 * width * width + 7 * width + 1,
    "steps": lambda width: 64 * (-(-width // 5)) * width,
    "almost a line": lambda width: 100 * width + width % 3,
    "steeper later": lambda width: width**3,
    "flat later": lambda width: min(width, 40),
    "constant": lambda width: 12,
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_the_nearest_width_is_found(name):
    count = COUNTS[name]
    every = [count(width) for width in range(1, MAX_WIDTH + 1)]
    for size in (1, 5, 12, 40, 77, 500, 1234, 99_999):
        assert abs(count(nearest_width(count, size)) - size) == min(abs(one - size) for one in every)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_who_only_looks_has_the_same_cells(name):
    checked, looked = (make_plan(EXPERIMENTS[name], "small", to_run=to_run) for to_run in (True, False))
    assert looked == checked


def test_a_cell_at_another_rate_is_what_it_would_be_alone():
    for cell in make_plan(EXPERIMENTS["mad"], "small", ["training.steps=7", "training.warmup=1"]).cells:
        assert resolved(cell.job.content) == cell.job.content
        assert key_of("train", cell.job.content) == cell.job.key
        assert [cell.labels[key] for key in ("lr", "seed")] == [
            cell.job.content["training"][key] for key in ("lr", "seed")
        ]


def test_who_only_looks_is_told_of_wrong_settings():
    for setting, words in (
        ("training.steps=-1", "training.steps: got -1"),
        ("mixer.normalization=nope", "normalization: got 'nope'"),
        ("task.length=0", "permutation.length: got 0"),
    ):
        with pytest.raises(ValueError, match=words):
            make_plan(EXPERIMENTS["fig3"], "full", [setting], to_run=False)


def test_nothing_is_planned_for_an_empty_store(tmp_path, monkeypatch):
    def planned(*arguments, **named):
        raise AssertionError("a grid was expanded")

    for grid in EXPERIMENTS["table1"].presets["full"]:
        monkeypatch.setattr(type(grid), "expand", planned)
    assert plan_in_store(EXPERIMENTS["table1"], Store(tmp_path), None).cells == []
    with pytest.raises(ValueError, match="has no run of table1"):
        read_results(EXPERIMENTS["table1"], tmp_path)
    with pytest.raises(ValueError, match="preset: got 'nope'"):
        read_results(EXPERIMENTS["table1"], tmp_path, "nope")
