"""The comparison of language models at equal parameters, as data: the setting, the models, their sizes.

`plan.py` has the runs; research/notes/language-models.md says what they decide and when they stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from statemix.analysis import mixer_parameters, parameters
from statemix.models import LanguageModel
from statemix.nn import MIXERS, build_mixer
from statemix_research.baselines import BASELINES

for _name, _place in BASELINES.items():  # as the entry point does where the package is installed
    MIXERS.register(_name, _place)

TOLERANCE = 0.005
"""Largest relative distance of a model's size, embedding and head left aside, from `target_size`."""

SEARCHED = 8
"""How far around the nearest size a rounder one is searched."""


@dataclass(frozen=True)
class Setting:
    """What all runs share.

    Attributes:
        vocab_size: V, of the corpus's tokenizer.
        dim: D, width of the residual stream.
        depth: Layers, each a mixer and a SwiGLU.
        norm: A key of `statemix.models.NORMS`.
        head_bias: Whether the head has a bias.
        scaled_init: Whether the SwiGLUs' output weights start divided by √(2 · depth).
        mixer_size: Parameters of one mixer, to which the models are brought.
        length: T, tokens of a sequence.
        batch_size: Sequences of a step.
        warmup: Share of the steps in which the learning rate grows.
        final_rate: The learning rate at the end of the cosine, as a share of the highest.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        clip: Largest norm of the gradient.
    """

    vocab_size: int = 32_768
    dim: int = 512
    depth: int = 6
    norm: str = "rms"
    head_bias: bool = False
    scaled_init: bool = True
    mixer_size: int = 1_719_000
    length: int = 1_024
    batch_size: int = 32
    warmup: float = 0.1
    final_rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0

    def steps(self, tokens: int) -> int:
        """Whole steps of one epoch of a split of so many tokens."""
        return (tokens - 1) // self.length // self.batch_size


SETTING = Setting()
"""That of the plan."""


@dataclass(frozen=True)
class QualityModel:
    """A model of the comparison.

    Attributes:
        name: In tables.
        mixer: A key of `statemix.nn.MIXERS`.
        arguments: Of the mixer; its size is among them where `grows` is empty.
        grows: The argument that is solved for, so that the mixer has `Setting.mixer_size` parameters.
        block: Options of `statemix.nn.Block` beyond the SwiGLU.
        multiple: Of which `grows` is a multiple, if it can be: gates and values are then made by one product.
        seconds: Expected device time of one epoch.
    """

    name: str
    mixer: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    grows: str = ""
    multiple: int = 1
    block: Mapping[str, Any] = field(default_factory=dict, hash=False)
    seconds: float = 60.0

    def mixer_arguments(self, setting: Setting = SETTING) -> dict[str, Any]:
        """Those of `statemix.nn.build_mixer`, the size included."""
        return {**self.arguments, **({self.grows: solve(self, setting)} if self.grows else {})}

    def build(self, setting: Setting = SETTING) -> LanguageModel:
        """The language model, on torch's default device."""
        arguments = self.mixer_arguments(setting)

        def mixer(dim: int) -> nn.Module:
            return build_mixer(self.mixer, dim, **arguments)

        return LanguageModel(
            setting.vocab_size, setting.dim, mixer, depth=setting.depth, norm=setting.norm, block=self.block,
            head_bias=setting.head_bias, scaled_init=setting.scaled_init,
        )  # fmt: skip


def _bdlru(m: int, suffix: str = "", **block: Any) -> QualityModel:
    name, multiple = f"BD-LRU m = {m}{suffix}", 8 // math.gcd(8, m)
    return QualityModel(name, "bdlru", {"block_size": m}, "num_blocks", multiple, block)


def _hlru(m: int) -> QualityModel:
    return QualityModel(f"H-LRU m = {m}", "hlru", {"order": m}, "num_channels", 8)


CHUNKED = 150.0
"""Expected seconds where a recurrence runs in chunks of plain torch."""

MODELS: tuple[QualityModel, ...] = (
    *(_bdlru(m) for m in (1, 2, 4, 8, 16)),
    _bdlru(4, ", convolution", conv_size=4),
    *(_hlru(m) for m in (4, 16)),
    QualityModel("Transformer", "attention", {"heads": 13, "head_dim": 64}),
    QualityModel("Gated DeltaNet", "gated_deltanet", {"heads": 7, "head_dim": 96}, seconds=CHUNKED),
    QualityModel("Mamba-2", "mamba2", {"state_dim": 128, "expand": 2, "head_dim": 64}, seconds=CHUNKED),
)
"""In the order in which they run. Attention has rotary positions; Gated DeltaNet and Mamba-2 have short convolutions
and gated norms; BD-LRU and H-LRU have none of these, but one model that shows what a convolution is worth."""


class Sizes(NamedTuple):
    """Parameters of a model: of its mixers, of all but embedding and head, of embedding and head."""

    mixers: int
    backbone: int
    vocabulary: int


def sizes(model: QualityModel, setting: Setting = SETTING) -> Sizes:
    """The parameters of a model, counted on the modules as they are built.

    >>> sizes(MODELS[2])
    Sizes(mixers=10336320, backbone=23024192, vocabulary=33554432)
    """
    with torch.device("meta"):
        built = model.build(setting)
    vocabulary = parameters(built.embedding) + parameters(built.head)
    return Sizes(mixer_parameters(built), parameters(built) - vocabulary, vocabulary)


@cache
def target_size(setting: Setting = SETTING) -> int:
    """Parameters of everything but embedding and head that every model is to have."""
    found = sizes(MODELS[0], setting)
    return found.backbone - found.mixers + setting.depth * setting.mixer_size


@cache
def solve(model: QualityModel, setting: Setting = SETTING) -> int:
    """The value of `model.grows` with which a mixer has about `setting.mixer_size` parameters.

    That is a multiple of `model.multiple` if one lies within half of `TOLERANCE`, else the nearest value.

    >>> [solve(model) for model in MODELS[:5]]
    [840, 336, 120, 38, 11]
    """

    def distance(value: int) -> int:
        with torch.device("meta"):
            mixer = build_mixer(model.mixer, setting.dim, **model.arguments, **{model.grows: value})
        return abs(parameters(mixer) - setting.mixer_size)

    near = max(1, round(setting.mixer_size / (distance(1) - distance(2))))
    around = sorted(range(max(1, near - SEARCHED), near + SEARCHED + 1), key=distance)
    slack = TOLERANCE / 2 * setting.mixer_size
    round_ones = [value for value in around if value % model.multiple == 0 and distance(value) <= slack]
    return (round_ones or around)[0]
