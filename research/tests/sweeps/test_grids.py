"""Every cell of every preset resolves, hashes stay, and impossible grids are refused before anything runs."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace

import pytest
from statemix_research.paper.experiments import EXPERIMENTS, get_experiment
from statemix_research.sweeps import jobs_of, make_plan, models, only
from statemix_research.sweeps.models import (
    BASELINES,
    BDLRU,
    HLRU,
    MAX_HEAD,
    MODEL_SPECS,
    ModelSpec,
    Skipped,
    counted,
    get_model_spec,
    sized,
)
from statemix_research.sweeps.store import key_of
from statemix_research.sweeps.tasks import PERMUTATIONS, TASK_SPECS, get_task_spec
from statemix_research.sweeps.throughput import SCANS

from research.tests.sweeps.helpers import experiment, sweep
from statemix.analysis import parameters
from statemix.nn import build_mixer
from statemix.training import Config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_small_presets_resolve(name):
    plan = make_plan(get_experiment(name), "small")
    assert 5 <= len(plan.cells) <= 60
    assert set(plan.reasons) <= {MODEL_SPECS[name].label for name in BASELINES}
    for cell in plan.cells:
        assert len(cell.job.key) == 16
        if cell.job.kind == "train":
            config = Config.from_dict(cell.job.content)
            assert config.training.device == "cpu"
            assert config.name == cell.job.key == key_of("train", config.to_dict())


@functools.cache
def whole(name):
    """A full preset of one seed and rate, which change nothing that is checked: the plan takes a second or two."""
    grids = [
        replace(grid, seeds=(0,), rates=grid.rates[:1]) if hasattr(grid, "seeds") else grid
        for grid in get_experiment(name).presets["full"]
    ]
    return make_plan(replace(get_experiment(name), presets={"full": grids}), "full")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_full_presets_resolve(name):
    for grid in get_experiment(name).presets["full"]:
        if hasattr(grid, "seeds"):
            assert len(grid.seeds) >= (5 if set(grid.tasks) & set(PERMUTATIONS) else 3)
    plan = whole(name)
    assert len(plan.cells) > 5
    assert set(plan.reasons) <= {MODEL_SPECS[name].label for name in BASELINES}


def test_views_and_claims_name_labels_that_there_are():
    labels = {model.label for model in MODEL_SPECS.values()} | set(SCANS)
    tasks = {problem.label for problem in TASK_SPECS.values()}
    for one in EXPERIMENTS.values():
        for where in [part.where for part in (*one.claims, *one.tables, *one.figures.values())]:
            for key, known in (("model", labels), ("task", tasks)):
                named = where.get(key, [])
                assert set([named] if isinstance(named, str) else named) <= known


def test_what_is_averaged_is_named():
    # a mean over the tasks that happen to have runs is not the published mean
    for one in EXPERIMENTS.values():
        averaging = [
            *(view for view in (*one.figures.values(), *one.claims) if view.across == "task"),
            *(view for view in one.tables if view.mean),
        ]
        for view in averaging:
            assert isinstance(view.where.get("task"), list), (one.name, view)


def test_hashes_are_stable():
    """A hash that changes would run everything again: change this only with what a run means."""
    assert key_of("train", {"b": 1, "a": [1.5, "x"], "name": "n", "version": "1"}) == "a17fea692e322065"
    manner = {"capture": "graph", "checkpoint_every": 7, "tensorboard": "off"}
    nested = {"training": {"lr": 0.1, **manner}, "task": {"n": 3, "name": "z"}}
    assert key_of("train", nested) == key_of(
        "train", {"training": {"lr": 0.1}, "task": {"n": 3, "name": "z"}}
    )
    assert key_of("train", nested) != key_of(
        "train", {"training": {"lr": 0.1}, "task": {"n": 3, "name": "y"}}
    )
    assert key_of("train", {"a": [1.5, "x"], "b": 1}) == "a17fea692e322065"
    assert key_of("throughput", {"a": [1.5, "x"], "b": 1}) != "a17fea692e322065"


def test_a_cell_that_spells_out_its_defaults_is_the_same_run():
    plain, spelt = sweep(), sweep()
    spelt.settings["model"]["norm"] = "layer"
    spelt.settings["task"]["n"] = 3
    spelt.settings["training"]["gradient_clip"] = 1.0
    assert [c.job.key for c in plain.expand()] == [c.job.key for c in spelt.expand()]


def test_settings_that_came_later_leave_old_keys_alone():
    """The key is that of a stored run, made before layers had hard rows."""
    assert "eadf4aff8cac9eb1" in {cell.job.key for cell in whole("table1").cells}
    soft, hard = (next(iter(sweep(models=(name,)).expand())).job for name in ("bdlru-2", "hard-bdlru-2"))
    assert (soft.content["mixer"]["hard"], hard.content["mixer"]["hard"]) == (False, True)
    assert soft.key != hard.key


def test_layers_in_turn_have_the_mean_size():
    mixer = sized(get_model_spec("half-hard-bdlru-4"), 16, "parameters", 3000)
    hard, soft = ({**mixer, "hard": rows, "learned_initial_state": rows} for rows in (True, False))
    sizes = [parameters(build_mixer(**one, dim=16)) for one in (hard, soft)]
    assert counted(json.dumps(mixer), 16, parameters) == sum(sizes) // 2 < sizes[0]


def test_the_soft_runs_of_hard_rows_are_those_of_table_1():
    soft = {cell.job.key for cell in whole("hard").cells if cell.labels["model"].startswith("BD-LRU")}
    assert len(soft) == 8
    stored = {
        cell.job.key
        for grid in get_experiment("table1").presets["full"]
        for cell in replace(
            grid, models=("bdlru-4", "bdlru-8"), sizes=(("parameters", 100_000),), rates=(1e-3,), seeds=(0,), probes=()
        ).expand()
    }  # fmt: skip
    assert soft < stored


def test_one_run_for_the_same_cell_in_two_experiments():
    table, figure = ({cell.job.key for cell in whole(name).cells} for name in ("table1", "fig1d"))
    assert len(table & figure) > 50


def test_settings_over_a_grid_change_labels_and_keys():
    plan = make_plan(experiment(), "full", ["training.seed=7", "training.steps=10"])
    assert {cell.labels["seed"] for cell in plan.cells} == {7}
    assert len(plan.cells) == len(jobs_of(plan.cells)) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["mixer.normalization=nope"], "normalization: got 'nope'"),
        (["task.length=0"], "permutation.length: got 0"),
        (["task.n=9"], "setting: got task.n, which the experiment sets itself"),
        (["training.eval_lengths=[0]"], "training.eval_lengths: permutation.length: got 0"),
        (["training.stepz=1"], "training.stepz: unknown setting"),
        (["name=x"], "setting: got 'name'"),
        (["mixer.name=hlru"], "setting: got mixer.name, which"),
        (["task.name=parity"], "setting: got task.name, which"),
        (["mixer.block_size=8"], "setting: got mixer.block_size, which"),
        (["training.lr=-1"], "training.lr: got -1"),
        (["training.seed=2147483648"], "training.seed: got 2147483648"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(
        ValueError, match=r"tiny: \d of 4 cells cannot run, nothing was started: .* \[S3, BD"
    ) as caught:
        make_plan(experiment(), "full", settings)
    assert str(caught.value).count(words) == 1  # one reason, then the cells that it refuses


def test_m_that_does_not_fit_the_size():
    with pytest.raises(ValueError, match=re.escape("its nearest size has 3 state, expected about 1 (")):
        make_plan(experiment(sizes=(("state", 1),)), "full")


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="experiment: got 'nope', expected one of 'table1', 'fig1c'"):
        get_experiment("nope")
    with pytest.raises(ValueError, match="preset: got 'nope', expected one of 'full', 'small'"):
        make_plan(experiment(), "nope")
    with pytest.raises(ValueError, match="model: got 'nope', expected one of bdlru-1"):
        get_model_spec("nope")
    with pytest.raises(ValueError, match="task: got 'nope', expected one of compression"):
        get_task_spec("nope")
    with pytest.raises(ValueError, match="matched_on: got 'nope'"):
        sized(get_model_spec("bdlru-1"), 8, "nope", 3)
    with pytest.raises(ValueError, match="expected none"):
        make_plan(get_experiment("fig5"), "small", ["training.steps=3"])


def test_sizes_are_thenearest_width():
    model = get_model_spec("bdlru-4")
    assert sized(model, 128, "state", 128)["num_blocks"] == 32
    each = 4 * (129 * 5 + 256)
    assert sized(model, 128, "parameters", 100_000)["num_blocks"] == round(100_000 / each)
    assert sized(model, 128, "width", 7)["num_blocks"] == 7


def test_a_width_is_of_what_carries_the_state():
    """Mamba-2 grows by its channels but its width is the state's; an sLSTM's is its heads' together."""
    assert sized(get_model_spec("mamba2"), 128, "width", 16)["state_dim"] == 16
    assert sized(get_model_spec("slstm"), 128, "width", 64)["heads"] == 2
    assert sized(get_model_spec("mlstm"), 128, "width", 256)["expand"] == 2
    with pytest.raises(Skipped, match="width: got 64, expected a multiple of 128"):
        sized(get_model_spec("mlstm"), 128, "width", 64)
    with pytest.raises(Skipped, match="width: got 24, expected a multiple of 16"):
        sized(get_model_spec("deltanet"), 128, "width", 24)
    with pytest.raises(Skipped, match="its state is fixed by dim, it has no width"):
        sized(get_model_spec("rwkv7"), 128, "width", 64)


def test_a_whole_number_is_the_float_that_is_meant():
    keys = [
        {cell.job.key for cell in make_plan(experiment(), "full", [f"mixer.gate_bias={bias}"]).cells}
        for bias in ("1", "1.0", "2.0")
    ]
    assert keys[0] == keys[1] != keys[2]


def test_round_widths_where_they_are_near():
    for name in (*BDLRU, *HLRU, "lstm"):
        model = get_model_spec(name)
        chosen = sized(model, 1024, "parameters", 33_000_000, 8)
        assert chosen[model.grows] % 8 == 0
        assert abs(counted(json.dumps(chosen), 1024, parameters) - 33_000_000) <= 0.025 * 33_000_000
    assert sized(get_model_spec("bdlru-4"), 16, "state", 20, 8)["num_blocks"] == 5
    steps = replace(get_model_spec("bdlru-1"), step=16)  # in sixteens anyway
    assert sized(steps, 1024, "parameters", 33_000_000, 8) == sized(steps, 1024, "parameters", 33_000_000)


def test_a_model_that_nothing_makes_larger_keeps_its_size():
    fixed = ModelSpec("LSTM of one size", {"name": "lstm", "hidden_size": 12})
    for multiple in (1, 8):
        assert sized(fixed, 16, "parameters", 1700, multiple) == fixed.mixer
    with pytest.raises(Skipped, match="its nearest size has 1632 parameters, expected about 17000"):
        sized(fixed, 16, "parameters", 17000)


def test_sizes_in_heads():
    for name, size, shape in (
        ("slstm", 100_000, {"head_dim": 32, "heads": 6}),
        ("slstm", 1_000_000, {"head_dim": 32, "heads": 60}),
        ("attention", 40_000, {"head_dim": 16}),
        ("attention", 100_000, {"head_dim": 48}),
        ("attention", 1_000_000, {"head_dim": 64, "heads": 31}),
    ):
        chosen = sized(get_model_spec(name), 128, "parameters", size)
        assert chosen == {"name": name, **shape}
        assert abs(counted(json.dumps(chosen), 128, parameters) - size) <= 0.25 * size


@pytest.mark.parametrize(
    "name", ["deltanet", "gated_deltanet", "gated_deltaproduct-2", "gated_deltaproduct-4"]
)
def test_large_mixers_of_the_delta_rule_have_more_heads_and_not_larger_ones(name):
    """fla's kernels take at most 256 numbers a head."""
    for dim, size in ((128, 100_000), (128, 1_000_000), (1024, 33_000_000)):
        chosen = sized(get_model_spec(name), dim, "parameters", size)
        assert chosen["head_dim"] <= MAX_HEAD
        assert abs(counted(json.dumps(chosen), dim, parameters) - size) <= 0.25 * size
    assert chosen["heads"] > 4
    assert "heads" not in sized(get_model_spec(name), 128, "parameters", 100_000)
    with pytest.raises(Skipped, match="head_dim: got 512, expected at most 256"):
        sized(get_model_spec(name), 128, "width", 512)


def test_a_baseline_that_is_not_there_or_cannot_be_built_is_skipped(monkeypatch):
    unknown = ModelSpec("Nobody", {"name": "nobody"}, "width")
    with pytest.raises(Skipped, match=r"mixer: 'nobody' is not among .*bdlru, hlru"):
        sized(unknown, 16, "width", 4)

    def build(name, dim, **arguments):
        if name == "attention":
            raise ImportError("needs a package")
        return build_mixer(name, dim, **arguments)

    monkeypatch.setattr(models, "build_mixer", build)
    models.counted.cache_clear()
    models._sized.cache_clear()
    one = sweep()
    grid = replace(one, models=("bdlru-1", "attention"))
    plan = make_plan(replace(experiment(), presets={"full": [grid]}), "full")
    assert len(plan.cells) == 2
    assert {refusal.reason for refusal in plan.skipped} == {"needs a package"}
    assert json.dumps(plan.skipped[0].labels)


def test_a_part_of_a_grid():
    plan = make_plan(EXPERIMENTS["table1"], "small")
    part = only(plan, ["task=s3", "model=bdlru-3,LSTM", "seed=0", "lr=1e-2"])
    assert {cell.labels["task"] for cell in part.cells} == {"S3"}
    assert {cell.labels["model"] for cell in part.cells} == {"BD-LRU m = 3", "LSTM"}
    assert {(cell.labels["seed"], cell.labels["lr"]) for cell in part.cells} == {(0, 0.01)}
    assert only(plan, []) == plan
    keys = {cell.job.key for cell in plan.cells}
    assert {cell.job.key for cell in part.cells} < keys


def test_a_label_may_have_a_comma(table):
    part = only(table, ["model=Gated DeltaProduct, 2"])
    assert {cell.labels["model"] for cell in part.cells} == {"Gated DeltaProduct, 2"}


@pytest.fixture(scope="module")
def table():
    return whole("table1")


SIZE = ["matched_on=state", "size=512"]


def test_a_part_with_what_is_skipped(table):
    """Attention has no state of a fixed size."""
    for model in ("attention", "Attention"):
        part = only(table, [f"model={model},lstm", *SIZE])
        assert part.cells
        assert {cell.labels["model"] for cell in part.cells} == {"LSTM"}
        assert {(cell.labels["matched_on"], cell.labels["size"]) for cell in part.cells} == {("state", 512)}
        assert {(o.labels["model"], o.labels["matched_on"], o.labels["size"]) for o in part.skipped} == {
            ("Attention", "state", 512)
        }
    unknown = only(table, ["model=attention,lstm", *SIZE, "length=32"])  # a label of cells alone
    assert set(unknown.reasons) == {"Attention"}


def test_every_reason_of_a_model_is_told(table):
    sizes = {one.labels["size"] for one in table.skipped if one.labels["model"] == "Mamba-2"}
    assert len(sizes) == table.reasons["Mamba-2"].count("expected about") > 1


def test_a_part_that_is_skipped_tells_why(table):
    words = "size=512; Attention: its state grows with the tokens seen, expected a state of 512 numbers"
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        only(table, ["model=attention", *SIZE])
    assert "Mamba" not in str(caught.value)
    with pytest.raises(ValueError, match="only: got length='7', expected one of") as caught:
        only(table, ["length=7"])
    assert "None" not in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (
            ["nope=1"],
            "only: got 'nope=1', expected label=values, the label one of task, model, layer, m, matched_on",
        ),
        (["task"], "only: got task='', expected one of compression, s3"),
        (["task=s3,s4"], "only: got task='s4', expected one of compression, s3"),
        (["seed=7"], "only: got seed='7', expected one of 0, 1"),
        (
            ["task=compression", "matched_on=parameters"],
            "only: no cell of table1 has all of task=compression, matched_on=par",
        ),
    ],
)
def test_parts_that_are_none(choices, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        only(make_plan(EXPERIMENTS["table1"], "small"), choices)
