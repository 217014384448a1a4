"""The models of the comparison at equal size, its runs, and what follows from outcomes."""

from __future__ import annotations

import doctest
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from statemix_research.language import plan, quality, report
from statemix_research.language.plan import Outcome, QualityRun
from statemix_research.language.quality import (
    MODELS,
    SETTING,
    TOLERANCE,
    QualityModel,
    Setting,
    sizes,
    solve,
    target_size,
)

SMALL = Setting(vocab_size=64, dim=32, depth=2, mixer_size=20_000)
NAMES = [model.name for model in MODELS]


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_models_have_equal_parameters(model):
    """Counted on the modules."""
    found = sizes(model)
    assert abs(found.backbone / target_size() - 1) <= TOLERANCE
    assert found.vocabulary == 2 * SETTING.vocab_size * SETTING.dim
    with torch.device("meta"):
        built = model.build()
    assert sum(one.numel() for one in built.parameters()) == found.backbone + found.vocabulary
    assert len(built.layers) == SETTING.depth


@pytest.mark.parametrize("model", [one for one in MODELS if one.grows], ids=lambda one: one.name)
def test_a_solved_model_learns(model):
    torch.manual_seed(0)
    built = model.build(SMALL)
    assert abs(sizes(model, SMALL).mixers / SMALL.depth / SMALL.mixer_size - 1) < 0.3
    tokens = torch.randint(64, (2, 9))
    loss = torch.nn.functional.cross_entropy(built(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in built.parameters())


def test_the_nearest_size_is_taken_and_a_round_one_preferred():
    plain = QualityModel("m = 1", "bdlru", {"block_size": 1}, "num_blocks")
    one = 2 * (SETTING.dim + 1) + 2 * SETTING.dim
    assert solve(plain) == round(SETTING.mixer_size / one) == 839
    assert solve(replace(plain, name="round", multiple=8)) == 840
    odd = QualityModel("odd", "bdlru", {"block_size": 16}, "num_blocks", 8)
    assert solve(odd) == 11  # no multiple of 8 is near


def test_steps_of_an_epoch():
    assert SETTING.steps(50_385_517) == 1537
    assert Setting(length=10, batch_size=2).steps(21) == 1


def test_the_plan_fits_the_device_time():
    """Even when every model gets a further rate and the slowest ones are contenders."""
    rates = plan.rate_runs()
    edges = [QualityRun("edges", name, 8e-3, plan.TUNING_SEED, plan.TUNING_EPOCHS) for name in NAMES]
    contenders = [*plan.BLOCK_SIZES, plan.REFERENCE, "Mamba-2"]  # the slowest
    seeded = [(name, seed) for seed in plan.SEEDS for name in NAMES if not seed or name in contenders]
    epoch = [QualityRun("epoch", name, 1e-3, seed) for name, seed in seeded]
    seconds = {model.name: model.seconds for model in MODELS}
    clock = [
        QualityRun("wall-clock", name, 1e-3, seed, 60 / seconds[name])
        for name, seed in seeded
        if name != plan.REFERENCE
    ]
    assert len(rates) == 33 and len(set(rates)) == 33
    held = plan.sessions([*rates, *edges, *epoch, *clock])
    assert len(held) <= plan.SESSIONS
    for runs in held:
        assert sum(run.seconds() for run in runs) + plan.STARTING_SECONDS <= plan.SESSION_SECONDS


LOSSES = {name: 3.0 + 0.01 * number for number, name in enumerate(NAMES)}


def outcome(run, loss=None, seconds=60.0):
    distance = abs(math.log2(run.learning_rate / 2e-3))
    return Outcome(run, LOSSES[run.model] + 0.1 * distance if loss is None else loss, seconds)


def test_stages_follow_each_other_until_the_end():
    outcomes, stages = [], []
    while runs := plan.next_runs(outcomes):
        assert len(stages) < 10
        stages.append((runs[0].stage, len(runs)))
        outcomes.append(outcome(runs[0]))
        assert plan.next_runs(outcomes) != runs
        outcomes += map(outcome, runs[1:])
    assert stages == [("rates", 33), ("epoch", 11 + 2 * 6), ("wall-clock", 10 + 2 * 5)]


def test_a_rate_at_the_edge_gets_a_further_one_once():
    outcomes = [outcome(run) for run in plan.rate_runs()]
    model = NAMES[0]
    outcomes = [one for one in outcomes if one.run.model != model]
    outcomes += [
        outcome(QualityRun("rates", model, rate), loss)
        for rate, loss in ((1e-3, 3.3), (2e-3, 3.2), (4e-3, 3.1))
    ]
    further = QualityRun("edges", model, 8e-3, plan.TUNING_SEED, plan.TUNING_EPOCHS)
    assert plan.edge_runs(outcomes) == [further]
    assert plan.chosen_rates(outcomes)[model] == 4e-3
    outcomes.append(outcome(further, 3.0))
    assert plan.edge_runs(outcomes) == [] and plan.chosen_rates(outcomes)[model] == 8e-3
    lowest = [
        outcome(QualityRun("rates", model, rate), loss)
        for rate, loss in ((1e-3, 3.1), (2e-3, 3.2), (4e-3, math.inf))
    ]
    assert plan.edge_runs(lowest) == [replace(further, learning_rate=5e-4)]


def test_contenders_are_the_block_sizes_the_reference_and_the_best():
    outcomes = [outcome(run) for run in plan.rate_runs()]
    assert plan.contenders(outcomes) == [*plan.BLOCK_SIZES, "Transformer"]  # the best is among them
    other = [one if one.run.model != "Mamba-2" else outcome(one.run, one.loss - 1) for one in outcomes]
    assert plan.contenders(other) == [*plan.BLOCK_SIZES, "Transformer", "Mamba-2"]


def test_a_model_goes_on_while_others_are_tuned():
    """Who else is a contender, and what equal wall-clock is, is known only once all learning rates are."""
    late = "Gated DeltaNet"
    outcomes = [outcome(run) for run in plan.rate_runs() if run.model != late]
    first = plan.next_runs(outcomes)
    assert {run.stage for run in first if run.model == late} == {"rates"}
    assert {run.stage for run in first if run.model != late} == {"epoch"}
    assert plan.contenders(outcomes) == [*plan.BLOCK_SIZES, "Transformer"]
    outcomes += [outcome(run) for run in first if run.model != late]
    assert {run.model for run in plan.next_runs(outcomes)} == {late}
    outcomes += [outcome(run, outcome(run).loss - 1) for run in first if run.model == late]
    assert [(run.stage, run.seed) for run in plan.next_runs(outcomes) if run.model == late] == [
        ("epoch", 0), ("epoch", 1), ("epoch", 2)
    ]  # fmt: skip
    assert {run.stage for run in plan.next_runs(outcomes) if run.model != late} == {"wall-clock"}


def test_equal_wall_clock_gives_slow_models_fewer_epochs():
    tuned = [outcome(run, seconds=200.0) for run in plan.rate_runs()]
    outcomes = [
        outcome(run, seconds=120.0 if run.model == "Mamba-2" else 50.0) for run in plan.epoch_runs(tuned)
    ]
    three = [one for one in outcomes if one.run.model in ("Mamba-2", "Transformer", NAMES[2])]
    runs = plan.wall_clock_runs([*tuned, *three])
    first = {run.model: run.epochs for run in runs if run.seed == 0}
    assert first == {name: 0.25 for name in NAMES if name != "Transformer"} | {
        "Mamba-2": 0.417,
        NAMES[2]: 1.0,
    }
    with pytest.raises(ValueError, match="outcomes: got none of Transformer"):
        plan.wall_clock_runs([one for one in outcomes if one.run.model == "Mamba-2"])


def test_a_model_is_timed_by_its_fastest_run():
    tuned = [outcome(run, seconds=60.0) for run in plan.rate_runs()]
    outcomes = [
        outcome(run, seconds=30.0 if run.model == NAMES[0] else 90.0) for run in plan.epoch_runs(tuned)
    ]
    epochs = {run.model: run.epochs for run in plan.wall_clock_runs([*tuned, *outcomes])}
    assert epochs == {name: 1.0 for name in NAMES if name != "Transformer"} | {NAMES[0]: 2.0}


def test_differences_are_paired_by_seed():
    def losses(model, values):
        return [
            Outcome(QualityRun("seeds", model, 1e-3, seed), loss, 60.0) for seed, loss in enumerate(values)
        ]

    first, second = losses("a", [3.0, 3.5, 4.0]), losses("b", [2.9, 3.42, 3.88, 9.0])
    found = plan.compare(first + second, "a", "b")
    assert found.spread.mean == pytest.approx(0.1) and found.spread.n == 3
    assert found.half_width == pytest.approx(4.303 * 0.02 / math.sqrt(3))
    assert found.separable
    assert not plan.compare(first + losses("b", [3.1, 3.4, 4.0]), "a", "b").separable
    with pytest.raises(ValueError, match="got 1 seeds of both a and b, expected 2 to 5"):
        plan.compare(first + losses("b", [3.0]), "a", "b")


def test_the_command_writes_what_comes_next(research, tmp_path):
    done = research("quality --out runs.jsonl")
    assert done.code == 0 and "next: 33 runs" in done.out and "Gated DeltaNet" in done.out
    entries = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    runs = [QualityRun(**{key: value for key, value in one.items() if key != "settings"}) for one in entries]
    assert runs == plan.rate_runs()
    assert entries[0]["settings"]["mixer"] == {"name": "bdlru", "block_size": 1, "num_blocks": 840}
    outcomes = [{**asdict(run), "loss": outcome(run).loss, "epoch_seconds": 60.0} for run in runs]
    (tmp_path / "outcomes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in outcomes))
    assert "next: 23 runs" in research("quality --outcomes outcomes.jsonl").out
    (tmp_path / "outcomes.jsonl").write_text(json.dumps(outcomes[0]) + "\n{}\n")
    done = research("quality --outcomes outcomes.jsonl")
    assert done.code == 2 and "line 2 of outcomes.jsonl is no outcome" in done.err


@pytest.mark.parametrize("name", ["BD-LRU m = 4, convolution", "Mamba-2", "Transformer"])
def test_a_run_is_settings_of_the_trainer(name):
    run = QualityRun("wall-clock", name, 2e-3, 1, 0.5)
    settings = plan.lm_settings(run, 50_385_517)
    training = settings["training"]
    assert (training["steps"], training["warmup"], training["lr"], training["min_lr"]) == (
        768,
        77,
        2e-3,
        2e-5,
    )
    assert " " not in settings["name"]
    lm = pytest.importorskip("statemix.lm", reason="statemix has no trainer of language models")
    overrides = [
        f"{section}.{key}={json.dumps(value)}"
        for section, entries in settings.items()
        if section != "name"
        for key, value in entries.items()
    ]
    config = lm.resolve_lm_config(overrides=overrides)
    assert (
        config.mixer == settings["mixer"]
        and config.training.steps == 768
        and config.block == settings["block"]
    )


def played():
    """Outcomes of the whole plan."""
    outcomes = []
    while runs := plan.next_runs(outcomes):
        outcomes += [outcome(run, 3.0 + LOSSES[run.model] + 0.01 * run.seed) for run in runs]
    return outcomes


def test_the_page_ranks_models_and_judges_block_sizes(tmp_path):
    outcomes = played()
    paths = report.write_page(outcomes, Path("outcomes.jsonl"), tmp_path)
    assert {path.name for path in paths} == {"fig4.md", "fig4.png", "fig4.csv"}
    page = (tmp_path / "fig4.md").read_text()
    tokens, time = (page[page.index(f"## {title}") :] for title, _ in report.SETTINGS.values())
    first = report.bits_per_byte(6.0)
    assert tokens.splitlines()[4].startswith(
        f"| BD-LRU m = 1 | {report.bits_per_byte(6.01):.4f} ({first:.4f}"
    )
    assert "| BD-LRU m = 2 | BD-LRU m = 1 | +0.0035 ± 0.0000 | yes |" in tokens
    reference = [
        next(line for line in part.splitlines() if line.startswith("| Transformer"))
        for part in (tokens, time)
    ]
    assert (
        reference[0] == reference[1] and "; 3) | – | " in reference[0]
    )  # an epoch of it is what the time is equal to
    assert f"- {len(outcomes)} runs; read from `outcomes.jsonl`." in page
    assert len((tmp_path / "data" / "fig4.csv").read_text().splitlines()) == len(outcomes) + 1


def test_the_page_of_a_part_of_the_plan(tmp_path):
    outcomes = [outcome(run) for run in plan.rate_runs()[:-1]]
    outcomes[0] = outcome(outcomes[0].run, math.inf)
    page = "\n".join(report.page_lines(outcomes, Path("o.jsonl"), drawn=False))
    assert "| BD-LRU m = 1 | diverged | **" in page and "that can begin are left" in page
    assert all(f"## {title}" not in page for title, _ in report.SETTINGS.values())
    assert report.draw(outcomes) is None


@pytest.mark.parametrize("module", [plan, quality, report], ids=lambda module: module.__name__)
def test_examples_of_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0
