"""Planning is cheap: sizes without values, one configuration for all rates and seeds, no compiler of torch's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from statemix_research.paper.experiments import EXPERIMENTS
from statemix_research.paper.source import plan_in_store, read_results
from statemix_research.sweeps import Store, make_plan
from statemix_research.sweeps.grid import resolved
from statemix_research.sweeps.models import MAX_WIDTH, MODEL_SPECS, counted, nearest_width
from statemix_research.sweeps.store import key_of

from statemix.analysis import parameters, state_size
from statemix.nn import build_mixer


@pytest.mark.parametrize("name", MODEL_SPECS)
def test_sizes_are_those_of_whole_mixers(name):
    model = MODEL_SPECS[name]
    mixer = {**model.mixer, **({model.grows: 2 * model.step} if model.grows else {})}
    with torch.device("meta"):
        whole = build_mixer(**mixer, dim=64)
    for count in (parameters, state_size):
        assert counted(json.dumps(mixer), 64, count) == count(whole)


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
    count, asked = COUNTS[name], []

    def counted(width):
        asked.append(width)
        return count(width)

    every = [count(width) for width in range(1, MAX_WIDTH + 1)]
    for size in (1, 5, 12, 40, 77, 500, 1234, 99_999):
        asked.clear()
        found = nearest_width(counted, size)
        assert abs(count(found) - size) == min(abs(one - size) for one in every)
        assert len(set(asked)) <= (12 if name == "a line" else 64)


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


def test_planning_imports_no_compiler():
    """torch computes some things without memory in Python, and imports its compiler for that."""
    code = (
        "import sys, statemix_research.sweeps as e, statemix_research.paper.experiments as p\n"
        "for name in ('fig5', 'mad'): e.make_plan(p.get_experiment(name), 'full', to_run=False)\n"
        "print(sorted({'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
