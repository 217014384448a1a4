"""The models that experiments name, as data, and how each is brought to a size."""

from __future__ import annotations

import bisect
import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from statemix.analysis import parameters, state_size
from statemix.nn import MIXERS, build_mixer, mixers_in_turn

TOLERANCE = 0.25
"""Largest relative distance between a mixer's size and the size it is matched to."""

ROUNDING = 0.025
"""Relative change of size that a round width may cost."""

MAX_WIDTH = 1 << 16
"""No larger width is searched."""

MAX_HEAD = 256
"""Largest head dimension: the limit of flash-linear-attention's delta-rule kernels."""


class Skipped(Exception):
    """A cell that this installation cannot build; the text is the reason. The rest of the grid runs without it."""


@dataclass(frozen=True)
class ModelSpec:
    """A mixer by its name in tables, and the argument by which it grows.

    Attributes:
        label: Name in tables and figures.
        mixer: Arguments of `statemix.nn.build_mixer`, less the size.
        grows: The argument that sets the size; "" for a mixer of fixed size.
        m: Block size or order.
        step: `grows` is a multiple of this.
        most: `grows` is at most this; a larger mixer has `grows` = most / 2 and grows by `then`.
        width: What a size in "width" sets instead of `grows`, and the argument, or "dim", that it must be a multiple
            of; an empty first name where the state has no width.
    """

    label: str
    mixer: dict[str, Any] = field(hash=False)
    grows: str = ""
    m: int | None = None
    step: int = 1
    most: int = MAX_WIDTH
    then: str = ""
    width: tuple[str, str] | None = None

    @property
    def layer(self) -> str:
        """The label without m."""
        return self.label.partition(" m = ")[0]

    @property
    def is_baseline(self) -> bool:
        """Whether the mixer is a baseline: it may be missing or lack a size, BD-LRU and H-LRU may not."""
        return self.mixer["name"] not in ("bdlru", "hlru")


def _heads(label: str, **mixer: Any) -> ModelSpec:
    return ModelSpec(label, mixer, "head_dim", step=16, most=MAX_HEAD, then="heads")


ORDERS = (1, 2, 3, 4, 5, 8, 16)
"""Block sizes and orders m of the paper's tables and figures, and two beyond."""

BDLRU = tuple(f"bdlru-{m}" for m in ORDERS)
HLRU = tuple(f"hlru-{m}" for m in ORDERS)

HARD = tuple(f"{rows}-{name}" for rows in ("hard", "half-hard") for name in (*BDLRU, *HLRU))
"""The same layers with hard rows and a learned initial state, or with a hard and a soft layer in turn; the paper's
experiments leave them out."""

_ROWS: dict[str, dict[str, Any]] = {
    "": {},
    "hard": {"hard": True, "learned_initial_state": True},
    "half-hard": {"hard": [True, False], "learned_initial_state": [True, False]},
}
"""What makes the rows of a layer's gates soft, hard, or either in turn."""


def _layers(rows: str) -> dict[str, ModelSpec]:
    """BD-LRU and H-LRU with such rows, of every order."""
    prefix, title = (f"{rows}-", f"{rows} ") if rows else ("", "")
    blocks = {
        f"{prefix}bdlru-{m}": ModelSpec(
            f"{title}BD-LRU m = {m}", {"name": "bdlru", "block_size": m, **_ROWS[rows]}, "num_blocks", m
        )
        for m in ORDERS
    }
    return blocks | {
        f"{prefix}hlru-{m}": ModelSpec(
            f"{title}H-LRU m = {m}", {"name": "hlru", "order": m, **_ROWS[rows]}, "num_channels", m
        )
        for m in ORDERS
    }


MODEL_SPECS: dict[str, ModelSpec] = {
    **_layers(""),
    **_layers("half-hard"),
    **_layers("hard"),
    "lstm": ModelSpec("LSTM", {"name": "lstm"}, "hidden_size"),
    "lru": ModelSpec("LRU", {"name": "lru"}, "state_dim"),
    "mamba2": ModelSpec("Mamba-2", {"name": "mamba2"}, "expand", width=("state_dim", "")),
    "deltanet": _heads("DeltaNet", name="deltanet"),
    "gated_deltanet": _heads("Gated DeltaNet", name="gated_deltanet"),
    "gated_deltaproduct-2": _heads("Gated DeltaProduct, 2", name="gated_deltaproduct", factors=2),
    "gated_deltaproduct-4": _heads("Gated DeltaProduct, 4", name="gated_deltaproduct", factors=4),
    "rwkv7": ModelSpec("RWKV-7", {"name": "rwkv7"}, "rank", step=16, width=("", "")),
    "mlstm": ModelSpec("mLSTM", {"name": "mlstm"}, "expand", width=("expand", "dim")),
    "slstm": ModelSpec("sLSTM", {"name": "slstm", "head_dim": 32}, "heads", width=("heads", "head_dim")),
    "pdssm": ModelSpec("PD-SSM", {"name": "pdssm"}, "state_dim"),
    "attention": ModelSpec("Attention", {"name": "attention"}, "head_dim", step=8, most=128, then="heads"),
}  # fmt: skip
"""Every model by the name that a sweep uses."""

BASELINES = tuple(name for name, spec in MODEL_SPECS.items() if spec.is_baseline)


def get_model_spec(name: str) -> ModelSpec:
    """The model of that name. ValueError listing the known ones."""
    if name not in MODEL_SPECS:
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(MODEL_SPECS)}")
    return MODEL_SPECS[name]


@functools.lru_cache(maxsize=100_000)
def counted(mixer: str, dim: int, count: Callable[[Any], int]) -> int:
    """A count of a mixer, given as JSON, that is built without memory: the mean where layers have several in turn."""
    turns = mixers_in_turn(json.loads(mixer))
    with torch.device("meta"):
        return sum(count(build_mixer(**one, dim=dim)) for one in turns) // len(turns)


MATCHED_ON: dict[str, Callable[[Any], int]] = {"parameters": parameters, "state": state_size}
"""What mixers may be matched on; a size may besides be a plain "width": blocks, channels or a hidden size."""


def _is_growing(mixer: Any) -> bool:
    """Whether the state grows with the tokens seen: it begins empty."""
    return not mixer.initial_state(1).numel()


def sized(spec: ModelSpec, dim: int, matched_on: str, size: int, multiple: int = 1) -> dict[str, Any]:
    """The mixer's arguments at the size nearest to `size` in `matched_on` ("parameters", "state"), or at a "width".

    multiple: `grows` is a multiple of this where that changes the size by at most `ROUNDING`; layers of odd widths can
    be five times slower on a GPU. Errors: Skipped for a baseline that this installation cannot build or that has no
    such size; ValueError for a size that does not fit, and for an unknown `matched_on`.
    """
    if matched_on != "width" and matched_on not in MATCHED_ON:
        raise ValueError(f"matched_on: got {matched_on!r}, expected one of width, {', '.join(MATCHED_ON)}")
    if spec.mixer["name"] not in MIXERS:
        raise Skipped(f"mixer: {spec.mixer['name']!r} is not among {', '.join(MIXERS)}")
    try:
        return {**_sized(spec, dim, matched_on, size, multiple)}
    except Exception as error:
        if not spec.is_baseline:
            raise
        raise Skipped(" ".join(str(error).split()) or type(error).__name__) from None


@functools.lru_cache(maxsize=10_000)
def _sized(spec: ModelSpec, dim: int, matched_on: str, size: int, multiple: int) -> dict[str, Any]:
    if matched_on == "width":
        mixer = _of_width(spec, dim, size)
        counted(json.dumps(mixer), dim, parameters)  # checks that it can be built
        return mixer
    if matched_on == "state" and counted(json.dumps(spec.mixer), dim, _is_growing):
        raise ValueError(f"its state grows with the tokens seen, expected a state of {size} numbers")

    def grown(width: int) -> dict[str, Any]:
        return {**spec.mixer, spec.grows: width * spec.step} if spec.grows else spec.mixer

    def count(width: int) -> int:
        return counted(json.dumps(grown(width)), dim, MATCHED_ON[matched_on])

    width = nearest_width(count, size) if spec.grows else 1
    if width * spec.step > spec.most:
        many_heads = {**spec.mixer, spec.grows: spec.most // 2}
        larger = replace(spec, mixer=many_heads, grows=spec.then, step=1, most=MAX_WIDTH)
        return _sized(larger, dim, matched_on, size, multiple)
    unit = multiple // math.gcd(multiple, spec.step)
    rounded = max(1, round(width / unit)) * unit
    if spec.grows and abs(count(rounded) - size) <= ROUNDING * size:
        width = rounded
    if abs(count(width) - size) > TOLERANCE * size:
        at = f"dim = {dim}" + (f", m = {spec.m}" if spec.m else "")
        raise ValueError(f"its nearest size has {count(width)} {matched_on}, expected about {size} ({at})")
    return grown(width)


def _of_width(spec: ModelSpec, dim: int, width: int) -> dict[str, Any]:
    argument, unit = spec.width or (spec.grows, "")
    if not argument:
        raise ValueError("its state is fixed by dim, it has no width")
    each = {"dim": dim, **spec.mixer, "": 1}[unit]
    multiple = math.lcm(each, spec.step)
    if width % multiple:
        raise ValueError(f"width: got {width}, expected a multiple of {multiple}")
    if argument == spec.grows and width > spec.most:
        raise ValueError(f"{argument}: got {width}, expected at most {spec.most}")
    return {**spec.mixer, argument: width // each}


def nearest_width(count: Callable[[int], int], size: int) -> int:
    """The width from 1 to `MAX_WIDTH` whose count is nearest to `size`; counts grow with the width."""
    width = 1 + bisect.bisect_left(range(1, MAX_WIDTH), size, key=count)
    return min((max(1, width - 1), width), key=lambda one: abs(count(one) - size))
