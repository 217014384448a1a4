"""What is measured on trained runs."""

from __future__ import annotations

import functools
import json
import threading

import pytest
from statemix_research.sweeps import Store, jobs_of, make_plan, probes, rows_of
from statemix_research.sweeps.probes import PROBES
from statemix_research.sweeps.work import execute

from research.tests.sweeps.helpers import experiment
from statemix.environment import cpu_model
from statemix.training import LEAVE
from statemix.training.files import read_json, write_json


@pytest.fixture
def plan():
    return make_plan(experiment(steps=20, probes=tuple(PROBES)), "full")


def test_every_measure_is_a_part_of_the_row(plan, tmp_path):
    jobs, store = jobs_of(plan.cells), Store(tmp_path)
    assert execute(jobs[0], str(tmp_path)).status == "finished"
    for name, measure in PROBES.items():
        assert set(store.probed(jobs[0].key, name)) == set(measure.gives)
    row = rows_of(plan, store)[0]
    assert 0 <= row["negative"] <= 1
    assert row["forgotten_at_start"] == row["silent"] == 0  # softmax
    assert 0 < row["left"] < 1
    assert 0 < row["milliseconds_per_step"] == store.probed(jobs[0].key, "step_time")["milliseconds_per_step"]


def test_a_measure_that_is_missing_is_made_without_training_again(plan, tmp_path):
    job, store = jobs_of(plan.cells)[0], Store(tmp_path)
    execute(job._replace(probes=()), str(tmp_path))
    assert store.status(job) == "unfinished"
    weights = (store.folder(job.key) / "model.safetensors").stat().st_mtime_ns
    execute(job, str(tmp_path))
    assert store.status(job) == "finished"
    assert (store.folder(job.key) / "model.safetensors").stat().st_mtime_ns == weights


def test_asked_to_leave_nothing_more_is_measured(plan, tmp_path):
    job, store, leave = jobs_of(plan.cells)[0], Store(tmp_path), threading.Event()
    execute(job._replace(probes=()), str(tmp_path))
    leave.set()
    before = LEAVE.set(leave)
    try:
        assert execute(job, str(tmp_path)).status == "interrupted"
    finally:
        LEAVE.reset(before)
    assert not [name for name in PROBES if store.probed(job.key, name)]


def test_the_step_time_of_a_run_from_a_gpu(plan, tmp_path):
    """It is timed as this machine trains, where it cannot be timed as it was trained."""
    job, store = jobs_of(plan.cells)[0]._replace(probes=("step_time",)), Store(tmp_path)
    execute(job._replace(probes=()), str(tmp_path))
    path = store.folder(job.key) / "summary.json"
    write_json(path, read_json(path) | {"capture": "compiled"})
    assert store.summary(job.key)["capture"] == "compiled"
    assert execute(job, str(tmp_path)) == (job.key, "finished", "")
    assert store.probed(job.key, "step_time")["timed_on"] == cpu_model()


def test_runs_that_differ_in_seed_and_rate_share_one_step_time(tmp_path, monkeypatch):
    timed = []

    def timing(content, captures):
        timed.append((json.loads(content), captures))
        return 250.0

    monkeypatch.setattr(probes, "_step_milliseconds", functools.lru_cache(timing))
    for rate in (1e-2, 1e-3):
        for job in jobs_of(make_plan(experiment(steps=6, rates=(rate,)), "full").cells):
            execute(job, str(tmp_path))
            assert PROBES["step_time"].take(tmp_path / job.key) == {
                "milliseconds_per_step": 250.0,
                "timed_on": cpu_model(),
            }
    assert [config["mixer"]["block_size"] for config, _ in timed] == [1, 3]
    assert {captures for _, captures in timed} == {("off",)}
    assert all(config["training"]["steps"] >= probes.TIMED_RUN for config, _ in timed)


def test_a_step_time_of_older_stores_is_read(plan, tmp_path):
    job, store = jobs_of(plan.cells)[0]._replace(probes=("step_time",)), Store(tmp_path)
    store.folder(job.key).mkdir()
    result = {"run": job.key, "milliseconds_per_step": 1.5, "timed_on": "a GPU"}
    write_json(store.folder(job.key) / "pace.json", result)
    assert store.probed(job.key, "step_time")["milliseconds_per_step"] == 1.5
