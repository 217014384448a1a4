"""Choices among made-up runs, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from statemix_research.paper.selection import (
    Summary,
    bootstrap,
    choose,
    frame_of,
    matching,
    summaries,
    within_time,
)


def run(lr, seed, validation, accuracy, ended="finished", **more):
    labels = {"model": "A", "task": "t", "lr": lr, "seed": seed}
    return {**labels, "validation": validation, "accuracy": accuracy, "ended": ended, **more}


RUNS = [
    run(1e-3, 0, 0.9, 0.6), run(1e-3, 1, 0.7, 0.8),
    run(5e-4, 0, 0.5, 1.0), run(5e-4, 1, 0.7, 1.0),
    run(1e-2, 0, 0.99, 0.9), run(1e-2, 1, None, None, "diverged"),
    {"model": "A", "task": "t", "lr": 1e-4, "seed": 0, "status": "missing"},
]  # fmt: skip


def test_the_choice_is_by_validation():
    chosen = choose(frame_of(RUNS), ["model"], ["lr"], "accuracy")
    assert set(chosen["lr"]) == {1e-3}
    assert Summary.of(chosen, "accuracy") == pytest.approx((0.7, 0.6, 0.8, 2, 0))


def test_a_setting_that_lacks_runs_is_not_chosen():
    """In a sweep that is under way the only run of a setting that has ended is one that succeeded early."""
    early = run(1e-3, 0, 1.0, 1.0, ended="stopped_early")
    chosen = choose(frame_of([early, run(5e-4, 0, 0.6, 0.6), run(5e-4, 1, 0.2, 0.2)]), [], ["lr"], "accuracy")
    assert set(chosen["lr"]) == {5e-4}


def test_a_run_that_diverged_counts_0():
    frame = frame_of(RUNS[4:])
    assert summaries(frame, ["model"], "accuracy") == {("A",): Summary(0.45, 0.0, 0.9, 2, 1)}
    assert str(Summary(0.45, 0.0, 0.9, 2, 1)) == "0.450 (0.000–0.900; 2, 1 diverged)"


def test_each_group_has_a_choice_of_its_own():
    other = [{**one, "task": "u", "validation": 1 - (one["validation"] or 0)} for one in RUNS[:4]]
    chosen = choose(frame_of([*RUNS[:4], *other]), ["task"], ["lr"], "accuracy")
    assert {task: set(runs["lr"]) for task, runs in chosen.groupby("task")} == {"t": {1e-3}, "u": {5e-4}}


def test_nothing_to_choose_from():
    assert frame_of(RUNS[6:]).empty
    assert choose(frame_of(RUNS), ["model"], ["lr"], "seconds").empty
    assert matching(frame_of(RUNS), {"nope": 1}).empty


def test_matching():
    frame = frame_of(RUNS)
    assert list(matching(frame, {"lr": [1e-3, 5e-4], "seed": 1}).index) == [1, 3]
    assert len(matching(frame, {})) == 6


def test_models_stand_in_the_order_of_the_registry():
    rows = [{**RUNS[0], "model": model} for model in ("LSTM", "another", "BD-LRU m = 4", "H-LRU m = 2")]
    assert list(frame_of(rows)["model"]) == ["BD-LRU m = 4", "H-LRU m = 2", "LSTM", "another"]


def test_bounds_of_a_timing_are_its_quartiles():
    ms = {"median": 2.0, "lower_quartile": 1.0, "upper_quartile": 4.0, "samples": 7}
    frame = frame_of([{"model": "A", "tokens_per_s": 1000.0, "ms": ms, "ended": "finished"}])
    assert Summary.of(frame, "tokens_per_s") == (1000.0, 500.0, 2000.0, 7, 0)


def test_a_bootstrap_is_of_each_group_by_itself():
    draws = bootstrap([[0.0, 1.0], [0.5, 0.5, 0.5]])
    assert set(draws) == {0.25, 0.5, 0.75}
    assert draws.mean() == pytest.approx(0.5, abs=0.01)
    assert (draws == bootstrap([[0.0, 1.0], [0.5, 0.5, 0.5]])).all()


def test_equal_time_is_of_times_on_one_device():
    """What was trained elsewhere counts by where its step was timed; a time from elsewhere does not count."""

    def timed(model, size, milliseconds, place, **more):
        labels = {"model": model, "matched_on": "state", "size": size, "timed_on": place}
        return {**run(0.1, 0, size, 0.5), **labels, "milliseconds_per_step": milliseconds, **more}

    rows = [
        timed("A", 1, 1.0, "here"), timed("B", 2, 1.05, "here"), timed("B", 3, 9.0, "here"),
        timed("B", 4, 0.1, "there"), timed("A", 1, 30.0, "there", seed=1),
        timed("B", 2, None, None, lr=0.3),  # a rate costs no time
    ]  # fmt: skip
    kept = within_time(frame_of(rows), {"model": "A"})
    assert sorted(zip(kept["model"], kept["size"], kept["lr"], strict=True)) == [
        ("A", 1, 0.1), ("A", 1, 0.1), ("B", 2, 0.1), ("B", 2, 0.3),
    ]  # fmt: skip
    assert within_time(frame_of(RUNS), {"model": "A"}).empty
