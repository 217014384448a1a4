"""Choices among made-up runs, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from statemix_research.paper.selection import averaged, matching, numbers, select, verdict, within

from statemix.analysis.statistics import Spread, spread


def run(lr, seed, validation, accuracy, status="finished", **more):
    return {"lr": lr, "seed": seed, "validation": validation, "accuracy": accuracy, "status": status, **more}


RUNS = [
    run(1e-3, 0, 0.9, 0.6), run(1e-3, 1, 0.7, 0.8),
    run(5e-4, 0, 0.5, 1.0), run(5e-4, 1, 0.7, 1.0),
    run(1e-2, 0, 0.99, 0.9), run(1e-2, 1, None, None, "diverged"),
    run(1e-4, 0, None, None, "missing"),
]  # fmt: skip


def test_the_choice_is_by_validation_and_shows_its_neighbours():
    selection = select(RUNS)
    assert selection.chosen.setting == {"lr": 1e-3}
    assert selection.chosen.value == pytest.approx((0.7, math.sqrt(0.02), 2))
    assert [one.setting["lr"] for one in selection.tried] == [5e-4, 1e-3, 1e-2]


def test_a_setting_that_lacks_runs_is_not_chosen():
    """In a sweep that is under way the only run of a setting that has ended is one that succeeded early."""
    early = run(1e-3, 0, 1.0, 1.0, status="stopped_early")
    selection = select([early, run(5e-4, 0, 0.6, 0.6), run(5e-4, 1, 0.2, 0.2)])
    assert selection.chosen.setting == {"lr": 5e-4}
    assert [one.value.n for one in selection.tried] == [2, 1]
    assert select([early, run(5e-4, 0, 0.6, 0.6)]).chosen.setting == {"lr": 1e-3}


def test_a_diverged_run_counts_zero_and_is_told():
    worst = select(RUNS).tried[-1]
    assert worst.validation.mean == pytest.approx(0.495)
    assert (worst.value.mean, worst.value.n, worst.diverged) == (0.45, 2, 1)
    assert numbers(RUNS[5:], "accuracy") == [0.0]
    assert numbers(RUNS[5:], "seconds") == []


def test_nothing_to_choose_from():
    assert select(RUNS[6:]) is None
    assert select([]) is None


def test_matching():
    assert matching(RUNS, {"lr": [1e-3, 5e-4], "seed": 1}) == [RUNS[1], RUNS[3]]
    assert matching(RUNS, {}) == RUNS


def test_equal_time_keeps_what_is_as_fast_on_the_same_hardware():
    runs = [run(1, 0, 1, 1, size=size, cost=cost, hardware=place)
            for size, cost, place in ((1, 1.0, "a"), (2, 2.0, "a"), (2, 2.4, "a"), (3, 0.1, "b"))]  # fmt: skip
    assert [r["size"] for r in within(runs, ("size",), "cost", 1.5, {"hardware": "a"})] == [1]
    assert [r["size"] for r in within(runs, ("size",), "cost", 2.2, {"hardware": "a"})] == [1, 2, 2]


def test_averages_and_verdicts():
    mean = averaged([Spread(0.5, 0.3, 3), Spread(0.7, 0.4, 5), spread([])])
    assert mean == pytest.approx((0.6, 0.25, 3))
    assert averaged([]).n == 0
    assert verdict(Spread(0.9, 0.05, 3), 1.0) == "agrees"
    assert verdict(Spread(0.9, 0.0, 1), 0.915) == "agrees"
    assert verdict(Spread(0.9, 0.01, 3), 1.0) == "differs (-0.100)"
    assert verdict(spread([]), 1.0) == "–"
