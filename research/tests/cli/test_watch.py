"""What is seen while a sweep runs."""

from __future__ import annotations

from collections import Counter

import pytest
from rich.console import Console
from statemix_research.cli import watch
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.sweeps import Progress, jobs_of, make_plan
from statemix_research.sweeps.grid import describe


@pytest.fixture
def sweep():
    plan = make_plan(EXPERIMENTS["fig3"], "small")
    jobs = jobs_of(plan.cells)
    progress = Progress(len(jobs), found=1, counts=Counter(finished=1))
    progress.running = {job.key: float(k) for k, job in enumerate(jobs[:3])}
    progress.ended = 1
    progress.counts["failed"] = 1
    return progress, {cell.job.key: describe(cell.labels) for cell in plan.cells}


@pytest.mark.parametrize("width", [120, 80, 40])
def test_running_runs_are_named_by_model_task_and_seed(sweep, width):
    progress, names = sweep
    console = Console(width=width)
    with console.capture() as captured:
        console.print(watch.picture("fig3", progress, names))
    text = " ".join(captured.get().split())
    for key in progress.running:
        assert names[key] in text
        assert key[:6] not in text
    assert "S5, BD-LRU m = 1" in text and "seed 0" in text


def test_a_sweep_in_a_log(sweep, monkeypatch, capsys):
    progress, names = sweep
    monkeypatch.setattr(watch, "IN_A_LINE", 2)
    line = watch.line("fig3", progress, names)
    assert line.startswith("fig3: 2 of 8 runs done, 1 failed, ")
    assert [names[key] in line for key in progress.running] == [True, True, False]
    assert line.endswith("; and 1 more")
    with watch.watching("fig3", 8, names) as watched:
        watched(progress)
        watched(progress)
    assert capsys.readouterr().err.count("fig3: 2 of 8 runs done") == 1
