"""Presets: complete configurations of equal size; settings that cannot be are refused by name."""

from __future__ import annotations

import pytest
import torch

from statemix.analysis import parameters
from statemix.lm import LM_PRESETS, resolve_lm_config
from statemix.lm.build import count_flops
from statemix.lm.config import LMConfig, check_batches
from statemix.lm.presets import SIZES
from statemix.models import LanguageModel
from statemix.nn import MIXERS, build_mixer

SIZE = {"140m": 140e6, "212m": 212e6, "340m": 335e6, "1.3b": 1275e6}
LITERATURE = {"340m": 15e9, "1.3b": 100e9}


def numbers(name):
    """Parameters of a preset's model, of which nothing is allocated."""
    config = resolve_lm_config(name)
    if (
        config.mixer["name"] not in MIXERS
    ):  # from a clone, statemix-research may be importable and not installed
        baselines = pytest.importorskip("statemix_research.baselines").BASELINES
        MIXERS.register(config.mixer["name"], baselines[config.mixer["name"]])
    with torch.device("meta"):
        return parameters(
            LanguageModel(
                config.model.vocab_size, config.model.dim, lambda dim: build_mixer(**config.mixer, dim=dim),
                depth=config.model.depth, norm="rms", tie_embeddings=config.model.tie_embeddings, head_bias=False,
                block=config.block,
            )
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", [name for name in LM_PRESETS if name != "tiny" and not name.endswith("2.5b")]
)
def test_models_of_a_size_have_equal_parameters(name):
    wanted = SIZE[name.partition("-")[0]]
    assert abs(numbers(name) / wanted - 1) < 0.011


def test_presets_have_their_tokens():
    for name in LM_PRESETS:
        config = resolve_lm_config(name)
        tokens = config.training.steps * config.training.batch_size * config.data.length
        size = name.partition("-")[0]
        expected = 2.5e9 if name.endswith("2.5b") else LITERATURE.get(size, 9.88e9)
        assert name == "tiny" or abs(tokens / expected - 1) < 0.001, name
        assert config.name == name
        assert check_batches(config, 1) * max(config.training.micro_batch, 1) <= config.training.batch_size
    assert {name.partition("-")[0] for name in LM_PRESETS} == {"tiny", *SIZES}


def test_the_paper_s_protocol():
    config = resolve_lm_config("212m-bdlru-m4")
    training = config.training
    assert config.mixer == {"name": "bdlru", "block_size": 4, "num_blocks": 302}
    assert (config.model.dim, config.model.depth, config.model.vocab_size) == (768, 12, 50_280)
    assert (training.steps, training.batch_size, training.lr, training.min_lr) == (18_850, 256, 6e-3, 1e-5)
    assert (training.betas, training.weight_decay, training.seed) == ((0.9, 0.95), 0.1, 100)


def test_flops_are_six_parameters_a_token_nearly():
    config = resolve_lm_config("212m-bdlru-m4")
    embedding = config.model.vocab_size * config.model.dim
    assert 1.9 < count_flops(config) / (numbers("212m-bdlru-m4") - embedding) < 2.2


def test_a_configuration_survives_json():
    config = resolve_lm_config("212m-hlru-m16", overrides=["training.lr=1e-3", "block.conv_size=4"])
    assert LMConfig.from_dict(config.to_dict()) == config
    assert config.block == {"conv_size": 4}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.lr=-1"], "training.lr: got -1"),
        (["training.nonsense=1"], "training.nonsense: unknown setting"),
        (["model.tie_embeddings=1"], "model.tie_embeddings: got 1, expected bool"),
        (["mixer=3"], "mixer: got 3"),
        (["training.sharding=zero"], "training.sharding: got 'zero', expected one of 'ddp', 'fsdp'"),
    ],
)
def test_settings_that_cannot_be_are_named(overrides, said):
    with pytest.raises(ValueError, match=said):
        resolve_lm_config("tiny", overrides=overrides)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match=r"preset: got 'huge', expected one of tiny, .*212m-bdlru-m4"):
        resolve_lm_config("huge")


def test_batches_that_have_no_equal_shares():
    config = resolve_lm_config("tiny", overrides=["training.batch_size=12", "training.micro_batch=4"])
    assert check_batches(config, 1) == 3
    with pytest.raises(
        ValueError, match=r"training\.batch_size: got 12, expected a multiple of the 5 processes"
    ):
        check_batches(config, 5)
    with pytest.raises(
        ValueError, match=r"training\.micro_batch: got 4, expected a divisor of the 6 sequences"
    ):
        check_batches(config, 2)


def test_a_warmup_that_is_not_given_fits_the_steps():
    assert resolve_lm_config("212m-bdlru-m4", overrides=["training.steps=100"]).training.warmup == 10
    given = resolve_lm_config("tiny", overrides=["training.steps=100", "training.warmup=50"])
    assert given.training.warmup == 50
