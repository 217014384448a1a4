"""`statemix-research`: small presets from run to page, what is shown, and bad input."""

from __future__ import annotations

import json

import pytest
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.pages import write_page
from statemix_research.paper.source import read_results
from statemix_research.sweeps import Store, jobs_of, make_plan, probes
from statemix_research.sweeps.work import execute_packed

from research.tests.sweeps.helpers import QUICK

SMALL = {"fig3": ["fig3.png"], "fig5": ["fig5a.png", "fig5b.png", "fig5c.png"]}


@pytest.mark.parametrize("name", SMALL)
def test_from_run_to_page(research, tmp_path, name):
    settings = [] if name == "fig5" else QUICK
    line = ["run", name, *settings, "--preset", "small", "--store", "s", "--workers", "2"]
    done = research(line)
    assert done.code == 0, done.err + done.out
    assert "finished" in done.out
    again = research(line)
    assert "found in the store" in again.out
    exported = research(["export", name, *settings, "--store", "s", "--out", f"e/{name}.jsonl"])
    assert exported.code == 0, exported.err
    made = research(f"paper {name} --store e --out d")
    assert made.code == 0, made.err
    page = (tmp_path / "d" / f"{name}.md").read_text()
    shown = research(["show", name, *settings, "--store", "s"])
    assert shown.code == 0, shown.err
    for word in (
        f"statemix-research run {name}", "Hardware:", "Date:", "The preset is small",
        {"fig3": "Cells: mean (minimum–maximum; n)", "fig5": "Cells: median"}[name],
    ):  # fmt: skip
        assert word in page
        assert word in shown.out
    for figure in SMALL[name]:
        assert (tmp_path / "d" / figure).read_bytes().startswith(b"\x89PNG")
        assert f"]({figure})" in page
    head, *rows = map(json.loads, (tmp_path / "e" / f"{name}.jsonl").read_text().splitlines())
    assert head["experiment"] == name
    assert len(rows) == head["cells"]
    assert {row["status"] for row in rows} <= {"finished", "diverged"}
    if name != "fig5":  # the file holds the settings
        imported = research(["import", f"e/{name}.jsonl", "--store", "other"])
        assert imported.out.startswith(
            f"e/{name}.jsonl: {len(rows)} runs imported, 0 in the store already, 0 left"
        )


def test_all_other_small_presets_from_runs_to_pages(tmp_path, monkeypatch):
    """As above, in this process: every cell of every small preset, two steps each, and what is made of them."""
    monkeypatch.setattr(probes, "TIMED", 2)  # a step's time takes most of the test's
    store, quick = (
        Store(tmp_path / "s"),
        [*QUICK, "training.steps=2", "training.train_examples=16", "training.eval_examples=8"],
    )
    for name in [name for name in EXPERIMENTS if name not in SMALL]:
        experiment, plan = EXPERIMENTS[name], make_plan(EXPERIMENTS[name], "small", quick)
        outcomes = execute_packed(jobs_of(plan.cells), str(store.path), 8)
        assert {one.status for one in outcomes} <= {"finished", "diverged"}, name
        paths = write_page(read_results(experiment, store.path, "small", quick), tmp_path)
        page = (tmp_path / f"{name}.md").read_text()
        assert "missing" not in page
        assert sum(f"## {view.title}" in page for view in experiment.tables) >= 1
        drawn = {path.stem for path in paths if path.suffix == ".png"}
        assert drawn <= set(experiment.figures)
        part = name in ("table1", "mad")  # figures of means of tasks, of which the small preset has a part
        assert drawn or part or not experiment.figures


def test_failures_are_listed_with_their_traceback(research, tmp_path):
    plan = make_plan(EXPERIMENTS["fig3"], "small", QUICK)
    keys = [job.key for job in jobs_of(plan.cells)]
    folder = tmp_path / "s" / keys[0]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    line = ["run", "fig3", *QUICK, "--preset", "small", "--store", "s", "--workers", "1"]
    done = research(line)
    assert done.code == 1
    assert "Traceback" in done.out
    assert f"1 of {len(keys)} runs failed; the same command with --retry" in done.err
    page = research(["show", *line[1:-2]]).out
    assert f"- Failed: {keys[0]}, S5, BD-LRU m = 1" in page
    assert research(["export", *line[1:-2], "--out", "x.jsonl"]).code == 0
    assert "cannot read" in (tmp_path / "x.jsonl").read_text()
    assert "Traceback" not in (tmp_path / "x.jsonl").read_text()  # it names the folders of a machine
    (folder / "config.json").unlink()
    assert research([*line]).code == 1
    assert research([*line, "--retry"]).code == 0
    assert Store(tmp_path / "s").failure(keys[0]) is None


BAD = {
    "run nope": "experiment: got 'nope', expected one of 'table1'",
    "run table1 --preset nope": "preset: got 'nope', expected one of 'full', 'small'",
    "run fig3 mixer.normalization=nope --preset small": "8 of 8 cells cannot run",
    "run fig3 task.length=0 --preset small": "permutation.length: got 0",
    "run fig3 --preset small --workers 0": "workers: got 0",
    "run fig3 --preset small --packed 0": "packed: got 0",
    "paper nope": "experiment: got 'nope', expected one of 'table1'",
    "paper fig3 --store nowhere": "nowhere: no such store of runs",
    "run fig3 --preset small --time-limit 0": "time-limit: got 0, expected minutes above 0",
    "run fig3 --preset small --only model=nope": "only: got model='nope', expected one of bdlru-1",
    "run fig3 --preset small --only nope": "only: got 'nope', expected label=values, the label one of task",
    "run fig5 training.steps=1 --preset small": "setting: got 'training.steps=1'",
    "show fig3 --store nowhere": "nowhere: no such store of runs",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input(research, tmp_path, line):
    done = research(line)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert BAD[line] in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_exports(research, tmp_path):
    for content in ("{", "{}", "", "[1]"):
        (tmp_path / "x.jsonl").write_text(content)
        done = research("show fig3 --store x.jsonl")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: store: x.jsonl")
        done = research("import x.jsonl --store s")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: file: x.jsonl")
    assert "no such file" in research("import y.jsonl --store s").err.lower()
    assert not (tmp_path / "s").exists()


def test_a_part_of_the_grid_side_by_side(research, tmp_path):
    line = [
        "run",
        "fig3",
        *QUICK,
        "--preset",
        "small",
        "--store",
        "s",
        "--workers",
        "1",
        "--packed",
        "2",
    ]
    done = research([*line, "--only", "model=bdlru-3,hlru-3"])
    assert done.code == 0, done.err
    assert "fig3, small: 2 finished; store" in done.out
    shown = research(["show", "fig3", *QUICK, "--store", "s"])
    assert "- Runs: 2 missing, 2 finished; preset small; read from" in shown.out
    assert "found in the store" in research(line).out


def test_the_list_names_all(research):
    shown = research("list").out
    assert all(name in shown for name in EXPERIMENTS)


def test_a_time_limit(research, tmp_path):
    line = [
        "run",
        "fig3",
        *QUICK[1:],
        "training.steps=20000",
        "--preset",
        "small",
        "--store",
        "s",
    ]
    done = research([*line, "--workers", "1", "--time-limit", "0.1"])
    assert done.code == 130
    assert done.err.splitlines()[-1] == (  # after what has been told of the progress
        "interrupted: the time limit is over: all active runs are saved; the same command goes on from there"
    )
    assert list((tmp_path / "s").glob("*/checkpoint/state.safetensors"))
