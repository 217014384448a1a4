"""The configuration: patterns of layers, what is derived, what is refused, files."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig

from statemix.hf import StatemixConfig
from tests.hf.small import MODELS, config


def test_defaults_are_bdlru_everywhere():
    small = StatemixConfig(num_hidden_layers=3)
    assert small.mixers == ["bdlru"] * 3
    assert small.layer_types == ["linear_attention"] * 3
    assert small.arguments_of("bdlru") == {"block_size": 4}


@pytest.mark.parametrize(
    ("pattern", "mixers"),
    [
        (["bdlru", "full_attention"], ["bdlru", None, "bdlru", None, "bdlru"]),
        (["linear_attention", "full_attention", "hlru"], ["bdlru", None, "hlru", "bdlru", None]),
        (["full_attention"], [None] * 5),
    ],
)
def test_a_pattern_is_repeated(pattern, mixers):
    arguments = {"bdlru": {"block_size": 2}, "hlru": {"order": 3}}
    made = StatemixConfig(num_hidden_layers=5, layer_types=pattern, mixer_arguments=arguments)
    assert made.mixers == mixers
    assert made.layer_types == ["full_attention" if one is None else "linear_attention" for one in mixers]
    assert made.arguments_of("hlru") == {"order": 3}


def test_heads_are_derived():
    made = StatemixConfig(hidden_size=256)
    assert (made.num_attention_heads, made.num_key_value_heads, made.head_dim) == (4, 4, 64)
    assert StatemixConfig(hidden_size=32).head_dim == 32  # one head
    assert StatemixConfig(hidden_size=64, head_dim=16).num_attention_heads == 4


@pytest.mark.parametrize("name", MODELS)
def test_files_give_the_same(name, tmp_path):
    made = config(name, eos_token_id=3)
    made.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is StatemixConfig
    assert {**again.to_dict(), "_name_or_path": ""} == made.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "statemix"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mixer": "gru"}, ValueError, "mixer: got 'gru', expected one of 'bdlru'"),
        (
            {"layer_types": ["bdlru", "gru"]},
            ValueError,
            "layer_types: got 'gru', expected one of 'full_attention'",
        ),
        ({"layer_types": []}, ValueError, "layer_types: got an empty pattern"),
        ({"mixers": ["bdlru"]}, ValueError, "mixers: got 1, expected one per layer"),
        ({"norm": "batch"}, ValueError, "norm: got 'batch', expected 'rms' or 'layer'"),
        ({"hidden_size": 0}, ValueError, "hidden_size: got 0, expected at least 1"),
        ({"vocab_size": 2.5}, TypeError, "vocab_size: got 2.5, expected a whole number"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, ValueError, "num_key_value_heads: got 2"),
        ({"head_dim": 7}, ValueError, "head_dim: got 7, expected an even number"),
        (
            {"layer_types": ["bdlru", "hlru"]},
            ValueError,
            "mixer_arguments: .* expected a mapping from each of",
        ),
        (
            {"layer_types": ["bdlru", "hlru"], "mixer_arguments": {"bdlru": {"block_size": 4}}},
            ValueError,
            r"mixer_arguments: nothing for \['hlru'\]",
        ),
    ],
)
def test_bad_settings(options, error, message):
    with pytest.raises(error, match=message):
        StatemixConfig(**{"num_hidden_layers": 2, **options})


def test_arguments_of_a_mixer_are_checked_when_it_is_built():
    from statemix.hf import StatemixModel

    with pytest.raises(ValueError, match=r"mixer\.order: unknown for 'bdlru'"):
        StatemixModel(config(mixer_arguments={"order": 2}))
