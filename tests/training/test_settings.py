"""Every setting is described, and a configuration survives as TOML."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from statemix.nn.registry import MIXERS
from statemix.tasks import TASKS
from statemix.training import Config, ModelConfig, TrainingConfig, resolve_config
from statemix.training.config import flatten
from statemix.training.settings import ARGUMENTS, NOT_SET, groups, to_toml

ALL = {title: {one.name: one for one in settings} for title, settings in groups().items()}


def test_every_setting_of_model_and_training_has_a_meaning():
    for title, kind in (("model", ModelConfig), ("training", TrainingConfig)):
        assert list(ALL[title]) == [f"{title}.{field.name}" for field in dataclasses.fields(kind)]
        assert all(one.meaning for one in ALL[title].values())
    known = set(flatten(Config().to_dict())) - {"version"}
    assert known <= {name for settings in ALL.values() for name in settings}


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_a_task(name):
    settings = ALL[f"task.name={name}"]
    assert list(settings) == [f"task.{option}" for option in TASKS[name].OPTIONS]
    assert all(one.meaning.partition(";")[0] for one in settings.values())


@pytest.mark.parametrize("name", MIXERS)
def test_every_argument_of_a_mixer(name):
    arguments = [one for one in inspect.signature(MIXERS[name]).parameters if one not in NOT_SET]
    assert list(ALL[f"mixer.name={name}"]) == [f"mixer.{one}" for one in arguments]


def test_every_argument_of_the_layers_is_described():
    layers = (MIXERS[name] for name in ("bdlru", "hlru"))
    assert set(ARGUMENTS) == {p for kind in layers for p in inspect.signature(kind).parameters} - set(NOT_SET)


def test_units_and_defaults():
    assert str(ALL["training"]["training.warmup"]).endswith("(steps; default 100)")
    assert str(ALL["training"]["training.lr"]).endswith("(default 0.001)")
    assert ALL["mixer.name=hlru"]["mixer.order"].default == "none, needed"


CONFIGS = {
    "defaults": (None, []),
    "preset": ("mad-hlru", []),
    "all kinds": ("demo-bdlru", ["training.betas=[0.5, 0.75]", "training.lr=1e-05", "training.steps=7"]),
    "other mixer and task": ("demo-bdlru", ["task.name=parity", "task.target=every", "mixer.name=attention"]),
    "booleans, tuples": (None, ["mixer.name=lru", "mixer.radius=[0.1, 0.2]"]),
    "not selective": (None, ["mixer.selective=false", "mixer.gate_bias=-1"]),
    "a name": (None, [r'name = "a\"b\\c [d] \n\t\u001b ü 名 \U0001F600"']),
    "a large number": (None, ["training.weight_decay=1e300", "training.train_lengths=[8, 16]"]),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_toml_is_read_back_to_the_same(case, tmp_path):
    preset, settings = CONFIGS[case]
    config = resolve_config(preset, None, settings)
    text = to_toml(config)
    assert text.isascii()  # every stream can hold it
    (tmp_path / "c.toml").write_text(text)
    assert resolve_config(None, tmp_path / "c.toml") == config
