"""Every model that an experiment may name, as data, and how each is brought to a size."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from statemix.analysis.accounting import parameters, state_size
from statemix.nn import build_mixer
from statemix.nn.registry import MIXERS

NEAR = 0.25
"""How far a mixer may be from the size asked of it, as a share of that size."""

LARGEST = 1 << 16
"""Beyond this no width is looked for."""

HEAD = 256
"""Numbers in a head, at most: fla's kernels of the delta rule take no more."""

SLIGHT = 0.025
"""How far a size may be from the one asked, as a share of it, for the sake of a round width."""


class LeftOut(Exception):
    """A cell that cannot be built here; the text is the reason. The rest of the grid goes on without it."""


@dataclass(frozen=True)
class Model:
    """A mixer, what it is called, and the argument by which it grows ("" if its width alone decides)."""

    label: str
    mixer: dict[str, Any] = field(hash=False)
    grows: str = ""
    m: int | None = None
    step: int = 1
    """`grows` is a multiple of this."""
    most: int = LARGEST
    """`grows` is at most this; in a larger mixer it is half of this, and the mixer grows by `then`."""
    then: str = ""
    width: tuple[str, str] | None = None
    """What a "width" sets instead of `grows`, and the argument, or "dim", of which it must be a multiple; an empty name
    where the state has no width."""

    @property
    def layer(self) -> str:
        """The label without m."""
        return self.label.partition(" m = ")[0]

    @property
    def ours(self) -> bool:
        """Whether this is one of this library's own layers; a rival may be missing, ours may not."""
        return self.mixer["name"] in ("bdlru", "hlru")


def _block(m: int) -> Model:
    return Model(f"BD-LRU m = {m}", {"name": "bdlru", "block_size": m}, "num_blocks", m)


def _order(m: int) -> Model:
    return Model(f"H-LRU m = {m}", {"name": "hlru", "order": m}, "num_channels", m)


def _heads(label: str, mixer: dict[str, Any]) -> Model:
    return Model(label, mixer, "head_dim", step=16, most=HEAD, then="heads")


M = (1, 2, 3, 4, 5, 8, 16)
"""Block sizes and orders of the paper's tables and figures, and two beyond."""

BDLRU = tuple(f"bdlru-{m}" for m in M)
HLRU = tuple(f"hlru-{m}" for m in M)

MODELS: dict[str, Model] = {
    **{name: _block(m) for name, m in zip(BDLRU, M, strict=True)},
    **{name: _order(m) for name, m in zip(HLRU, M, strict=True)},
    "lstm": Model("LSTM", {"name": "lstm"}, "hidden_size"),
    "lru": Model("LRU", {"name": "lru"}, "state_dim"),
    "mamba2": Model("Mamba-2", {"name": "mamba2"}, "expand", width=("state_dim", "")),
    "deltanet": _heads("DeltaNet", {"name": "deltanet"}),
    "gated_deltanet": _heads("Gated DeltaNet", {"name": "gated_deltanet"}),
    "gated_deltaproduct-2": _heads("Gated DeltaProduct, 2", {"name": "gated_deltaproduct", "factors": 2}),
    "gated_deltaproduct-4": _heads("Gated DeltaProduct, 4", {"name": "gated_deltaproduct", "factors": 4}),
    "rwkv7": Model("RWKV-7", {"name": "rwkv7"}, "rank", step=16, width=("", "")),
    "mlstm": Model("mLSTM", {"name": "mlstm"}, "expand", width=("expand", "dim")),
    "slstm": Model("sLSTM", {"name": "slstm", "head_dim": 32}, "heads", width=("heads", "head_dim")),
    "pdssm": Model("PD-SSM", {"name": "pdssm"}, "state_dim"),
    "attention": Model("Attention", {"name": "attention"}, "head_dim", step=8, most=128, then="heads"),
}
"""Every model by the name that a sweep uses."""

RIVALS = tuple(name for name, model in MODELS.items() if not model.ours)


def get_model(name: str) -> Model:
    """The model of that name. ValueError listing the known ones."""
    if name not in MODELS:
        raise ValueError(f"model: got {name!r}, expected one of {', '.join(MODELS)}")
    return MODELS[name]


FILLS = (
    "uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "constant_", "copy_", "fill_",
    "zero_", "clamp_", "log_", "exp_",
)  # fmt: skip
"""What fills a tensor, and is left out where sizes alone count."""

ELEMENTWISE = ("neg", "log", "log1p", "exp", "expm1", "mul", "add", "sub", "__rsub__", "pow", "full_like")
"""What gives a tensor as large as those it is given. Without memory torch does it in Python, and imports its compiler
for that, which takes seconds."""


MADE: dict[Any, Callable[..., Tensor]] = {
    torch.linspace: lambda start, end, steps: torch.empty(steps),
    torch.randn: lambda *size: torch.empty(*size),
}
"""What makes a tensor with values, and what makes one of that size."""


class SizesAlone(TorchFunctionMode):
    """On the meta device modules are built as large as they are, and nothing is computed for their weights.

    everything: whatever is made here is on the meta device.
    """

    def __init__(self, everything: bool = False) -> None:
        super().__init__()
        self.everything = everything

    def __torch_function__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        given = arguments[0] if function is torch.stack else (*arguments, *named.values())
        tensors = [one for one in given if isinstance(one, Tensor) and one.is_meta]
        shapes = {one.shape for one in tensors}
        if tensors and function.__name__ in FILLS:
            return tensors[0]
        if len(shapes) == 1 and function.__name__ in ELEMENTWISE:
            return tensors[0].detach()
        if len(shapes) == 1 and function is torch.stack:
            return tensors[0].new_empty(len(tensors), *tensors[0].shape)
        if self.everything and function in MADE:
            return MADE[function](*arguments)
        return function(*arguments, **named)


@functools.lru_cache(maxsize=100_000)
def _counted(mixer: str, dim: int, how: Callable[[Any], int]) -> int:
    """A number counted on a mixer (JSON) that is built without memory."""
    with torch.device("meta"), SizesAlone(everything=True):
        return how(build_mixer(**json.loads(mixer), dim=dim))


BASES: dict[str, Callable[[Any], int]] = {"parameters": parameters, "state": state_size}
"""What two mixers may be equal in; beside them a size may be a plain "width": blocks, channels, a hidden size."""


def _growth(mixer: Any) -> int:
    """How many numbers the state of a mixer gains from one token to the next."""
    return state_size(mixer, 2) - state_size(mixer, 1)


def sized(model: Model, dim: int, basis: str, size: int, multiple: int = 1) -> dict[str, Any]:
    """The mixer's arguments at a size: the nearest to `size` in `basis` ("parameters", "state"), or a "width".

    multiple: `grows` is one of this number where that makes a `SLIGHT` difference; layers of other widths can take
    five times as long on a GPU. Errors: LeftOut for a rival that this installation cannot build; ValueError for a size
    that does not fit, and for an unknown basis.
    """
    if basis != "width" and basis not in BASES:
        raise ValueError(f"basis: got {basis!r}, expected one of width, {', '.join(BASES)}")
    if model.mixer["name"] not in MIXERS:
        raise LeftOut(f"mixer: {model.mixer['name']!r} is not among {', '.join(MIXERS)}")
    if model.ours:
        return {**_sized(model, dim, basis, size, multiple)}
    try:
        return {**_sized(model, dim, basis, size, multiple)}
    except Exception as error:
        raise LeftOut(" ".join(str(error).split()) or type(error).__name__) from None


def _of_width(model: Model, dim: int, width: int) -> dict[str, Any]:
    """The mixer's arguments at a width: `Model.width`, or else `grows`, as many units as make it."""
    argument, unit = model.width or (model.grows, "")
    if not argument:
        raise ValueError("its state is fixed by dim, it has no width")
    each = {"dim": dim, **model.mixer, "": 1}[unit]
    multiple = math.lcm(each, model.step)
    if width % multiple:
        raise ValueError(f"width: got {width}, expected a multiple of {multiple}")
    if argument == model.grows and width > model.most:
        raise ValueError(f"{argument}: got {width}, expected at most {model.most}")
    return {**model.mixer, argument: width // each}


@functools.cache
def _sized(model: Model, dim: int, basis: str, size: int, multiple: int) -> dict[str, Any]:
    def grown(width: int) -> dict[str, Any]:
        return {**model.mixer, model.grows: width * model.step} if model.grows else model.mixer

    if basis == "width":
        chosen = _of_width(model, dim, size)
        _counted(json.dumps(chosen), dim, parameters)
        return chosen

    if basis == "state" and _counted(json.dumps(model.mixer), dim, _growth):
        raise ValueError(f"its state grows with the tokens seen, one of {size} numbers was asked")

    def count(width: int) -> int:
        return _counted(json.dumps(grown(width)), dim, BASES[basis])

    width = _nearest(count, size) if model.grows else 1
    if width * model.step > model.most:
        many = {**model.mixer, model.grows: model.most // 2}
        return _sized(
            replace(model, mixer=many, grows=model.then, step=1, most=LARGEST), dim, basis, size, multiple
        )
    unit = multiple // math.gcd(multiple, model.step)
    rounded = max(1, round(width / unit)) * unit
    if model.grows and abs(count(rounded) - size) <= SLIGHT * size:
        width = rounded
    found = count(width)
    if abs(found - size) > NEAR * size:
        raise ValueError(
            f"its nearest size has {found} {basis}, {size} were asked (dim = {dim}"
            + (f", m = {model.m})" if model.m else ")")
        )
    return grown(width)


def _nearest(count: Callable[[int], int], size: int) -> int:
    """The width whose count is nearest to `size`; counts grow with the width."""
    low, high = 1, 2
    while count(high) < size and high < LARGEST:
        low, high = high, 2 * high
        if high == 2 * FITTED[-1]:
            low, high = _around(count, size)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < size else (low, middle)
    return min((low, high), key=lambda width: abs(count(width) - size))


FITTED = (2, 4, 8)
"""Widths from whose counts the others are guessed: a matrix has two sides that may grow with the width, so that a
count is a parabola, or nearly."""


def _around(count: Callable[[int], int], size: int) -> tuple[int, int]:
    """Two widths between whose counts `size` lies: neighbours, if the parabola through `FITTED` holds; or `LARGEST`
    and half of it. The widths of `FITTED` are too small."""
    low = FITTED[-1]
    high = max(low + 1, min(_guessed([count(width) for width in FITTED], size), LARGEST))
    step = 1
    while count(high) < size and high < LARGEST:
        low, high, step = high, min(high + step, LARGEST), 2 * step
    while high - low > 1 and count(max(low, high - step)) >= size:
        high, step = high - step, 2 * step
    return max(low, high - step), high


def _guessed(counts: Sequence[int], size: int) -> int:
    """The first width at which the parabola through the counts of `FITTED` is at least `size`, or `LARGEST`."""
    slopes = [(counts[k + 1] - counts[k]) / (FITTED[k + 1] - FITTED[k]) for k in (0, 1)]
    bend = (slopes[1] - slopes[0]) / (FITTED[2] - FITTED[0])
    slope = slopes[0] - bend * (FITTED[0] + FITTED[1])
    rest = counts[0] - bend * FITTED[0] ** 2 - slope * FITTED[0] - size
    inside = slope**2 - 4 * bend * rest
    bottom = slope + math.sqrt(max(inside, 0.0))
    return LARGEST if inside < 0 or bottom <= 0 else math.ceil(min(-2 * rest / bottom, LARGEST))
