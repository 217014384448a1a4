"""Pages of the results that are kept, and an experiment, a task, a model and a baseline that are added."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from statemix_research.paper import pages
from statemix_research.paper.experiment import Experiment, Figure, Table
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.pages import claims_page, page_lines, write_page
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
