"""`statemix experiment`: small presets from run to page, what is shown, and bad input."""

from __future__ import annotations

import json

import pytest
from statemix_research.paper.evidence import read_evidence, write_evidence
from statemix_research.sweeps import EXPERIMENTS, Store, jobs_of, make_plan
from statemix_research.sweeps.work import execute_many

QUICK = ["training.steps=4", "training.warmup=1", "training.lr=0.01", "training.seed=0"]
SMALL = {"fig3": ["fig3.png"], "fig5": ["fig5a.png", "fig5b.png", "fig5c.png"]}


@pytest.mark.parametrize("name", SMALL)
def test_from_run_to_page(statemix, tmp_path, name):
    settings = [] if name == "fig5" else QUICK
    line = ["experiment", "run", name, *settings, "--preset", "small", "--store", "s", "--workers", "2"]
    done = statemix(line)
    assert done.code == 0, done.err + done.out
    assert "finished" in done.out
    again = statemix(line)
    assert "found in the store" in again.out
    shown = statemix(
        ["experiment", "show", name, *settings, "--store", "s", "--out", "d/results.md", "--figures", "d/f"]
    )
    assert shown.code == 0, shown.err
    page = (tmp_path / "d" / "results.md").read_text()
    assert page.count(f"<!-- experiment {name} -->") == 1
    for word in (
        f"statemix experiment run {name}",
        "Raw data: `s`",
        "Hardware:",
        "Date:",
        "The preset is small",
        {"fig3": "mean ± standard deviation over seeds", "fig5": "the median of repeated passes"}[name],
        {"fig3": "Eigenvalues of all runs", "fig5": "Medians."}[name],
    ):
        assert word in page
    for figure in SMALL[name]:
        assert (tmp_path / "d" / "f" / figure).read_bytes().startswith(b"\x89PNG")
        assert f"f/{figure}" in page
    exported = statemix(["experiment", "export", name, *settings, "--store", "s", "--out", f"{name}.jsonl"])
    assert exported.code == 0, exported.err
    head, *rows = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
    assert head["experiment"] == name
    assert len(rows) == head["cells"]
    assert {row["status"] for row in rows} <= {"finished", "diverged"}
    if name != "fig5":  # settings and all: the file says what was asked
        imported = statemix(["experiment", "import", f"{name}.jsonl", "--store", "other"])
        assert imported.out.startswith(
            f"{name}.jsonl: {len(rows)} runs imported, 0 in the store already, 0 left"
        )
    read = statemix(["experiment", "show", name, "--store", f"{name}.jsonl", "--out", "d/results.md"])
    assert read.code == 0, read.err
    page_again = (tmp_path / "d" / "results.md").read_text()
    assert page_again.count("## ") == page.count("## ")  # the section was replaced, not added
    assert "jsonl" in page_again


def test_all_other_small_presets_from_runs_to_pages(tmp_path):
    """As above, in this process: every cell of every small preset, four steps each, and what is made of them."""
    store = Store(tmp_path / "s")
    for name in [name for name in EXPERIMENTS if name not in SMALL]:
        plan = make_plan(EXPERIMENTS[name], "small", QUICK)
        outcomes = execute_many(jobs_of(plan.cells), str(store.path), 8)
        assert {one.status for one in outcomes} <= {"finished", "diverged"}, name
        evidence = read_evidence(EXPERIMENTS[name], store.path, "small", QUICK)
        text, drawn = write_evidence(evidence, "the command", tmp_path / "results.md", None)
        assert "missing" not in text
        assert [path.name for path in drawn] == [f"{view.name}.png" for view in EXPERIMENTS[name].figures]
        assert sum(f"### {view.title}" in text for view in EXPERIMENTS[name].tables) >= 1
    page = (tmp_path / "results.md").read_text()
    assert page.count("<!-- experiment ") == len(EXPERIMENTS) - len(SMALL)


def test_failures_are_listed_with_their_traceback(statemix, tmp_path):
    plan = make_plan(EXPERIMENTS["fig3"], "small", QUICK)
    keys = [job.key for job in jobs_of(plan.cells)]
    folder = tmp_path / "s" / keys[0]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    line = ["experiment", "run", "fig3", *QUICK, "--preset", "small", "--store", "s", "--workers", "1"]
    done = statemix(line)
    assert done.code == 1
    assert "Traceback" in done.out
    assert f"1 of {len(keys)} runs failed; the same command with --retry" in done.err
    page = statemix(["experiment", "show", *line[2:-2]]).out
    assert f"- Failed: {keys[0]}, S5, BD-LRU m = 1" in page
    assert statemix(["experiment", "export", *line[2:-2], "--out", "x.jsonl"]).code == 0
    assert "cannot read" in (tmp_path / "x.jsonl").read_text()
    assert "Traceback" not in (tmp_path / "x.jsonl").read_text()  # it names the folders of a machine
    (folder / "config.json").unlink()
    assert statemix([*line]).code == 1
    assert statemix([*line, "--retry"]).code == 0
    assert Store(tmp_path / "s").failure(keys[0]) is None


BAD = {
    "experiment run nope": "experiment: got 'nope', expected one of 'table1'",
    "experiment run table1 --preset nope": "preset: got 'nope', expected one of 'full', 'small'",
    "experiment run fig3 mixer.normalization=nope --preset small": "8 of 8 cells cannot run",
    "experiment run fig3 task.length=0 --preset small": "permutation.length: got 0",
    "experiment run fig3 --preset small --workers 0": "workers: got 0",
    "experiment run fig3 --preset small --packed 0": "packed: got 0",
    "experiment run fig3 --preset small --compilers -1": "compilers: got -1",
    "experiment run fig3 --preset small --compilers 2 --scheduler tcp://127.0.0.1:1": "compilers: a scheduler's",
    "experiment run fig3 --preset small --time-limit 0": "time-limit: got 0, expected minutes above 0",
    "experiment run fig3 --preset small --only model=nope": "only: got model='nope', expected one of bdlru-1",
    "experiment run fig3 --preset small --only nope": "only: got 'nope', expected label=values, the label one of task",
    "experiment run fig5 training.steps=1 --preset small": "setting: got 'training.steps=1'",
    "experiment show fig3 --store nowhere": "nowhere: no such store of runs",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input(statemix, tmp_path, line):
    done = statemix(line)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert BAD[line] in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_exports(statemix, tmp_path):
    for content in ("{", "{}", "", "[1]"):
        (tmp_path / "x.jsonl").write_text(content)
        done = statemix("experiment show fig3 --store x.jsonl")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: store: x.jsonl")
        done = statemix("experiment import x.jsonl --store s")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: file: x.jsonl")
    assert "no such file" in statemix("experiment import y.jsonl --store s").err.lower()
    assert not (tmp_path / "s").exists()


def test_a_part_of_the_grid_side_by_side(statemix, tmp_path):
    line = [
        "experiment",
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
    done = statemix([*line, "--only", "model=bdlru-3,hlru-3"])
    assert done.code == 0, done.err
    assert "fig3, small: 2 finished; store" in done.out
    shown = statemix(["experiment", "show", "fig3", *QUICK, "--store", "s"])
    assert "- Runs: 2 missing, 2 finished; preset small." in shown.out
    assert "found in the store" in statemix(line).out


def test_the_list_names_all(statemix):
    shown = statemix("experiment list").out
    assert all(name in shown for name in EXPERIMENTS)


def test_a_time_limit(statemix, tmp_path):
    line = [
        "experiment",
        "run",
        "fig3",
        *QUICK[1:],
        "training.steps=20000",
        "--preset",
        "small",
        "--store",
        "s",
    ]
    done = statemix([*line, "--workers", "1", "--time-limit", "0.1"])
    assert done.code == 130
    assert done.err.splitlines()[-1] == (  # after what has been told of the progress
        "interrupted: the time is over: what was under way is saved; the same command goes on from there"
    )
    assert list((tmp_path / "s").glob("*/checkpoint/state.safetensors"))
