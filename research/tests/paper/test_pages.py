"""Pages of the results that are kept, and an experiment, a task, a model and a baseline that are added."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from statemix_research.language.heldout import loss_row
from statemix_research.paper import pages
from statemix_research.paper.experiment import Experiment, Figure, Table
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.pages import claims_page, page_lines, write_page
from statemix_research.paper.selection import with_losses
from statemix_research.paper.source import Results, read_results
from statemix_research.sweeps.models import MODEL_SPECS, ModelSpec
from torch import nn

from research.tests.sweeps.helpers import sweep
from statemix.nn import MIXERS

RESULTS = Path(__file__).parents[2] / "results"


KEPT = sorted(path for path in RESULTS.rglob("*.jsonl") if path.stem in EXPERIMENTS)
"""Results of experiments; others have pages of their own (fig4) or none."""


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_kept_result_is_read_and_its_page_fits(path):
    results = read_results(EXPERIMENTS[path.stem], path)
    lines = "\n".join(page_lines(results, {})).split("\n")
    assert 20 < len(lines) <= 114  # figures take the rest of 120
    assert any(line.startswith("| ") for line in lines)


def test_a_page_with_its_figure_data_and_claims(tmp_path):
    results = read_results(EXPERIMENTS["relu"], RESULTS / "relu.jsonl")
    assert {path.relative_to(tmp_path).as_posix() for path in write_page(results, tmp_path)} == {
        "relu.md", "relu.png", "data/relu.csv",
    }  # fmt: skip
    page = (tmp_path / "relu.md").read_text()
    assert "![Compression against m](relu.png)" in page
    assert "n = 3. NVIDIA H" in page
    assert (tmp_path / "relu.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "data" / "relu.csv").read_text().splitlines()) == 1 + len(results.rows)
    claims = claims_page([results, results])  # equal claims once
    assert "1 claims: 1 reproduced" in claims
    assert "| The ReLU gate fails on compression: below softmax at m = 1 | lower |" in claims


def test_a_run_that_is_trained_and_not_probed_is_not_called_unfinished():
    rows = [
        {"key": "a", "status": "finished", "ended": "finished"},
        {"key": "b", "status": "unfinished", "ended": "stopped_early"},
        {"key": "c", "status": "unfinished"},
        {"key": "c", "status": "unfinished"},
    ]
    lines = list(pages._origin(Results(EXPERIMENTS["table1"], "full", (), rows, {}, Path("a file"))))
    assert lines[0].startswith("- Runs: 1 finished, 1 trained but not probed, 1 unfinished; preset full")


class Average(nn.Module):
    """A toy baseline: the mean of what has been read."""

    def __init__(self, dim: int, *, width: int = 4, device=None, dtype=None) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim * width // width, device=device, dtype=dtype)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, self.map.in_features)

    def step(self, x, state=None):
        raise NotImplementedError

    def forward(self, x, state=None, **unused):
        counts = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return self.map(x.cumsum(1) / counts), x.sum(1)


def test_a_toy_experiment_and_a_toy_baseline(research, monkeypatch, tmp_path):
    """An experiment is one object in the registry, a model one entry, a baseline one entry of the mixers."""
    monkeypatch.setitem(MIXERS._places, "average", Average)  # `register`, undone after the test
    monkeypatch.setitem(MODEL_SPECS, "average", ModelSpec("Average", {"name": "average"}, "width"))
    toy = Experiment(
        "toy", "A toy", "Does an experiment take one file?",
        {"full": (sweep(steps=4, models=("bdlru-1", "average"), sizes=(("width", 4),)),)},
        tables=(Table("Accuracy"),), figures={"toy": Figure("A toy", x="size")},
    )  # fmt: skip
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    from statemix_research.sweeps import Store, jobs_of, make_plan
    from statemix_research.sweeps.work import execute_packed

    plan = make_plan(toy, "full")
    assert not plan.reasons
    outcomes = execute_packed(jobs_of(plan.cells), str(Store(tmp_path / "s").path), 4)
    assert {one.status for one in outcomes} == {"finished"}, outcomes
    done = research("paper toy --store s --out pages")
    assert done.code == 0, done.err
    page = (tmp_path / "pages" / "toy.md").read_text()
    assert "| Average | " in page
    assert "![A toy](toy.png)" in page


def test_the_page_of_hard_rows_is_what_the_command_writes(tmp_path, monkeypatch):
    """Its table has the losses of language models beside the accuracies of the experiment."""
    monkeypatch.chdir(RESULTS.parents[1])
    kept = Path("docs/reproduce")
    for path in write_page(read_results(EXPERIMENTS["hard"], Path("research/results/hard.jsonl")), tmp_path):
        assert path.read_text() == (kept / path.relative_to(tmp_path)).read_text()
    (line,) = [line for line in (kept / "hard.md").read_text().split("\n") if line.startswith("| language")]
    assert line.count("; ") + line.count("(1)") == 3


def test_losses_are_rows_of_the_models_of_experiments(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    mixer = {"name": "bdlru", "block_size": 4, **MODEL_SPECS["half-hard-bdlru-4"].mixer}
    for name, content in {
        "config": {"mixer": mixer, "model": {}, "training": {"seed": 3}},
        "summary": {"status": "finished", "step": 5, "parameters": 7, "tokens": 9},
        "evaluation": {"loss": 1.5, "standard_error": 0.1, "bits_per_byte": 2.0},
    }.items():
        (run / f"{name}.json").write_text(json.dumps(content))
    row = loss_row(run)
    assert (row["model"], row["seed"], row["loss"]) == ("half-hard BD-LRU m = 4", 3, 1.5)
    (tmp_path / "losses.jsonl").write_text(json.dumps(row) + "\n")
    one = pd.DataFrame([{"task": "S3", "model": "BD-LRU m = 4", "accuracy": 1.0}])
    both = with_losses(one, tmp_path / "losses.jsonl", "accuracy")
    assert list(both["accuracy"]) == [1.0, 1.5]
    assert with_losses(one, tmp_path / "none.jsonl", "accuracy") is one
    (run / "config.json").write_text(json.dumps({"mixer": {"name": "mine"}}))
    with pytest.raises(
        ValueError, match=r"got the mixer \{'name': 'mine'\}, expected one of an experiment's"
    ):
        loss_row(run)
