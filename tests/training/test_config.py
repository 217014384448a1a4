"""Configurations: layers of settings, round trips, and everything refused before work begins."""

from __future__ import annotations

import json

import pytest

from statemix.training import PRESETS, SUMMARIES, Config, build_model, resolve_config
from statemix.training.resolve import parse_override


def test_defaults_are_complete_and_survive_json():
    config = resolve_config()
    assert config.version
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    config = resolve_config(preset)
    assert config.name == preset
    assert Config.from_dict(config.to_dict()) == config
    assert SUMMARIES[preset]
    assert set(SUMMARIES) == set(PRESETS)


def test_layers_with_arguments_of_their_own():
    rows = ["mixer.hard=[true, false]", "mixer.learned_initial_state=[true, false]"]
    config = resolve_config("mad-bdlru", overrides=["task.name=permutation", *rows])
    first, second = build_model(config).layers
    assert (first.mixer.hard, second.mixer.hard) == (True, False)
    assert first.mixer.initial is not None and second.mixer.initial is None
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(
        ValueError, match=r"mixer.hard: got \[True, False\], expected .* each layer, 1 at most"
    ):
        resolve_config("mad-bdlru", overrides=["model.depth=1", *rows])


def test_layers_in_order(tmp_path):
    """defaults <- preset <- file <- key=value."""
    file = tmp_path / "run.toml"
    file.write_text('name = "mine"\n[training]\nlr = 0.5\nsteps = 77\nwarmup = 3\n[mixer]\nnum_blocks = 5\n')
    config = resolve_config("demo-bdlru", file, ["training.lr=0.25", "training.eval_lengths=[16, 32]"])
    assert (config.name, config.training.steps, config.training.lr) == ("mine", 77, 0.25)
    assert config.mixer == {
        "name": "bdlru", "block_size": 4, "num_blocks": 5, "learned_initial_state": True, "gate_bias": -30.0
    }  # fmt: skip
    assert config.training.eval_lengths == (16, 32)
    assert config.training.batch_size == 128


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_a_warmup_that_nobody_gave_is_no_longer_than_the_steps(preset, tmp_path):
    usual = resolve_config(preset).training
    assert resolve_config(preset, None, ["training.steps=4"]).training.warmup == 4
    (tmp_path / "steps.toml").write_text("[training]\nsteps = 5\n")
    assert resolve_config(preset, tmp_path / "steps.toml").training.warmup == 5
    longer = resolve_config(preset, None, [f"training.steps={usual.steps + 1}"]).training
    assert longer.warmup == usual.warmup
    (tmp_path / "warmup.toml").write_text("[training]\nwarmup = 6\n")
    with pytest.raises(ValueError, match=r"training.warmup: got 6, expected at most steps = 4"):
        resolve_config(preset, tmp_path / "warmup.toml", ["training.steps=4"])


def test_another_mixer_or_task_starts_afresh():
    config = resolve_config("demo-bdlru", None, ["mixer.name=hlru", "mixer.order=2", "task.name=parity"])
    assert config.mixer == {"name": "hlru", "order": 2}
    assert config.task == {"name": "parity"}


def test_values_are_toml_and_bare_words_are_strings():
    assert parse_override("a.b=3e-4") == {"a": {"b": 3e-4}}
    assert parse_override("a=true") == {"a": True}
    assert parse_override("a=[1, 2]") == {"a": [1, 2]}
    assert parse_override("a=cosine") == {"a": "cosine"}
    assert parse_override('a="x=y"') == {"a": "x=y"}


CASES = {
    "preset": (("demo", None, ()), r"preset: got 'demo', expected one of demo-diagonal"),
    "no equals": ((None, None, ["steps"]), r"setting: got 'steps', expected key=value"),
    "section": ((None, None, ["optimizer.lr=1"]), r"optimizer: unknown setting, expected one of name, task"),
    "key": ((None, None, ["training.learning_rate=1"]), r"training.learning_rate: unknown setting.*lr"),
    "type": ((None, None, ["training.steps=many"]), r"training.steps: got 'many', expected int"),
    "bool": ((None, None, ["training.lr=true"]), r"training.lr: got True, expected float"),
    "list": ((None, None, ["training.eval_lengths=16"]), r"training.eval_lengths: got 16, expected a list of ints"),
    "betas": ((None, None, ["training.betas=[0.9]"]), r"training.betas: got \[0.9\]"),
    "table": ((None, None, ["training=3"]), r"training: got 3, expected a table"),
    "no name": ((None, None, ["task=3"]), r'task: got 3, expected a table with a "name"'),
    "steps": ((None, None, ["training.steps=0"]), r"training.steps: got 0, expected 1 to"),
    "batch": ((None, None, ["training.batch_size=0"]), r"training.batch_size: got 0"),
    "negative": ((None, None, ["training.lr=-1.0"]), r"training.lr: got -1.0, expected at least 0"),
    "warmup": ((None, None, ["training.steps=9", "training.warmup=10"]),
               r"training.warmup: got 10, expected at most steps = 9"),
    "preset's warmup": (("demo-bdlru", None, ["training.warmup=50", "training.steps=9"]),
                        r"training.warmup: got 50, expected at most steps = 9"),
    "schedule": ((None, None, ["training.schedule=linear"]), r"training.schedule: got 'linear', expected one of"),
    "precision": ((None, None, ["training.precision=int8"]), r"training.precision: got 'int8'"),
    "capture": ((None, None, ["training.capture=on"]), r"training.capture: got 'on', expected one of 'auto', 'off'"),
    "norm": ((None, None, ["model.norm=batch"]), r"model.norm: got 'batch', expected one of 'layer'"),
    "dim": ((None, None, ["model.dim=0"]), r"model.dim: got 0"),
    "task": ((None, None, ["task.name=sorting"]), r"task: got 'sorting', expected one of 'compression'"),
    "task option": ((None, None, ["task.size=3"]), r"size"),
    "mixer": ((None, None, ["mixer.name=mamba"]), r"mixer: got 'mamba', expected one of .*'bdlru', 'hlru'"),
    "mixer argument": ((None, None, ["mixer.order=3"]), r"mixer.order: unknown for 'bdlru'"),
    "mixer missing": ((None, None, ["mixer.name=hlru"]), r"mixer.order: missing"),
    "mixer value": ((None, None, ["mixer.block_size=0"]), r"block_size: got 0"),
    "mixer type": ((None, None, ["mixer.block_size=2.5"]), r"block_size: got 2.5"),
    "lengths": ((None, None, ["training.eval_lengths=[0]"]), r"training.eval_lengths: .*got 0"),
    "length twice": ((None, None, ["training.eval_lengths=[8, 8]"]), r"training.eval_lengths: got \[8, 8\], .* once"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    arguments, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        resolve_config(*arguments)


def test_bad_files(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = = 3")
    with pytest.raises(ValueError, match=r"config: .*broken.toml is not TOML"):
        resolve_config(None, broken)
    with pytest.raises(OSError, match=r"absent.toml"):
        resolve_config(None, tmp_path / "absent.toml")
