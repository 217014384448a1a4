"""Files of runs: what is written comes back, into another store, as it was."""

from __future__ import annotations

import json
import shutil

import pytest
from statemix_research.paper.experiments import get_experiment
from statemix_research.sweeps import Store, export, import_runs, jobs_of, rows_of
from statemix_research.sweeps.work import execute, execute_packed

from research.tests.sweeps.helpers import events
from statemix.training import RunError


@pytest.fixture(scope="module")
def first(plan, whole, tmp_path_factory):
    """All runs of a small figure 3, one of them without its measurement, as an exported file."""
    folder = tmp_path_factory.mktemp("first")
    store, jobs = Store(shutil.copytree(whole, folder / "store")), jobs_of(plan.cells)
    store.probe_path(jobs[0].key, "spectrum").unlink()
    store.history_path(jobs[2].key).unlink()  # killed when all was done but that
    export(plan, rows_of(plan, store), folder / "first.jsonl")
    return folder / "first.jsonl"


@pytest.fixture
def exported(first, tmp_path):
    return shutil.copy(first, tmp_path / first.name)


def test_what_comes_back_is_exported_to_the_same_bytes(plan, exported, tmp_path):
    store = Store(tmp_path / "second")
    count = len(jobs_of(plan.cells))
    assert import_runs(exported, store, get_experiment) == (count, 0, 0)
    export(plan, rows_of(plan, store), tmp_path / "second.jsonl")
    assert (tmp_path / "second.jsonl").read_bytes() == exported.read_bytes()
    assert import_runs(exported, store, get_experiment) == (0, count, 0)


def test_runs_that_came_back_are_not_run_again(plan, exported, tmp_path):
    store = Store(tmp_path / "second")
    import_runs(exported, store, get_experiment)
    done = jobs_of(plan.cells)[1:]
    assert {store.status(job) for job in done} == {"finished"}
    before = {job.key: store.attempts(job.key) for job in done}
    assert {one.status for one in execute_packed(done, str(store.path), 8)} == {"finished"}
    assert {job.key: store.attempts(job.key) for job in done} == before


def test_a_run_that_came_back_without_weights_is_trained_again_to_be_measured_on_them(
    plan, exported, tmp_path
):
    store = Store(tmp_path / "second")
    import_runs(exported, store, get_experiment)
    unmeasured = jobs_of(plan.cells)[0]
    folder, imported = store.folder(unmeasured.key), store.summary(unmeasured.key)
    assert execute(unmeasured._replace(probes=("step_time",)), str(store.path)).status == "finished"
    assert not (folder / "model.safetensors").exists()  # a pace needs none
    assert store.status(unmeasured) == "unfinished"
    assert [one.status for one in execute_packed([unmeasured], str(store.path), 2)] == ["finished"]
    assert store.status(unmeasured) == "finished"
    assert (folder / "model.safetensors").exists()
    assert [line["summary"] for line in store.attempts(unmeasured.key) if line["event"] == "reopened"] == [
        imported
    ]
    assert store.summary(unmeasured.key)["seconds"] > 0
    weights = (folder / "model.safetensors").stat().st_mtime_ns
    assert execute(unmeasured, str(store.path)).status == "finished"  # once
    assert (folder / "model.safetensors").stat().st_mtime_ns == weights


def test_measurements_are_added_to_runs_that_came_before(plan, exported, tmp_path):
    store, job = Store(tmp_path / "second"), jobs_of(plan.cells)[1]
    count = len(jobs_of(plan.cells))
    import_runs(exported, store, get_experiment)
    store.probe_path(job.key, "spectrum").unlink()
    assert store.status(job) == "unfinished"
    assert import_runs(exported, store, get_experiment) == (0, count, 0)
    assert store.status(job) == "finished"


def test_what_was_measured_on_other_weights_does_not_come_to_a_run_of_here(plan, exported, tmp_path):
    """On a GPU the same seed may end with others."""
    store, jobs = Store(tmp_path / "second"), jobs_of(plan.cells)
    execute(jobs[1]._replace(probes=()), str(store.path))
    store.note(jobs[3].key, "started")  # and is under way
    summary = store.summary(jobs[1].key)
    assert import_runs(exported, store, get_experiment) == (len(jobs) - 2, 2, 0)
    for job in (jobs[1], jobs[3]):
        assert store.probed(job.key, "spectrum") is None
        assert store.status(job) == "unfinished"
    assert store.summary(jobs[1].key) == summary
    assert store.summary(jobs[3].key) is None


@pytest.mark.parametrize("left", [("config.json",), ("config.json", "attempts.jsonl", "metrics.jsonl")])
def test_cut_off_the_same_import_goes_on(plan, exported, tmp_path, left):
    store, jobs = Store(tmp_path / "second"), jobs_of(plan.cells)
    import_runs(exported, store, get_experiment)
    for path in store.folder(jobs[1].key).iterdir():
        if path.name not in left:
            path.unlink()
    assert import_runs(exported, store, get_experiment) == (1, len(jobs) - 1, 0)
    assert len(events(store, jobs[1].key, "ended")) == 1
    export(plan, rows_of(plan, store), tmp_path / "second.jsonl")
    assert (tmp_path / "second.jsonl").read_bytes() == exported.read_bytes()


def test_failures_and_runs_of_another_grid_are_skipped(plan, exported, tmp_path):
    head, *rows = map(json.loads, exported.read_text().splitlines())
    rows[0] = {**rows[0], "key": "0" * 16}
    rows[1] = {"key": rows[1]["key"], "status": "failed", "error": "…"}
    exported.write_text("".join(json.dumps(line) + "\n" for line in (head, *rows)))
    store = Store(tmp_path / "second")
    assert import_runs(exported, store, get_experiment) == (len(rows) - 2, 0, 2)
    assert store.status(jobs_of(plan.cells)[1]) == "missing"


def test_a_store_that_cannot_be_written(exported, tmp_path):
    (tmp_path / "second").mkdir(mode=0o500)
    if (tmp_path / "second").stat().st_uid == 0:
        pytest.skip("nothing is forbidden to root")
    with pytest.raises(RunError, match="cannot write"):
        import_runs(exported, Store(tmp_path / "second"), get_experiment)
