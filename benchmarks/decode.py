"""One token at a time: the time of a layer's step, in a stack of layers and on to far positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import cuda
from benchmarks.clock import free, set_count, time_calls
from benchmarks.packages import reason
from benchmarks.record_files import header
from statemix.nn import BDLRU, HLRU

DEFAULT_LAYERS = "bdlru:1,bdlru:2,bdlru:4,bdlru:8,bdlru:16,hlru:4,lstm:1"
DEFAULT_POSITIONS = "1,1000,1000000"

NEAR = 10_000
"""Layers that do not run on are measured at positions up to here."""

STEPS = 8
"""Tokens in one run of a stack."""

FAR_STEPS = {"cuda": 128}
"""Tokens in one run of a layer that runs on, where more than `STEPS`."""

State = Any


class LSTM(nn.Module):
    """torch's LSTM cell as a layer: the rival."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(dim, dim)

    def initial_state(self, batch: int) -> list[Tensor]:
        """Zeros [B, D], twice."""
        return [self.cell.weight_hh.new_zeros(batch, self.cell.hidden_size) for _ in range(2)]

    def step(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One token: x [B, D] -> (h, new state)."""
        new = list(self.cell(x, state))
        return new[0], new


BUILDERS: dict[str, Callable[[int, int], nn.Module]] = {
    "bdlru": lambda dim, m: BDLRU(dim, block_size=m),
    "hlru": lambda dim, m: HLRU(dim, order=m),
    "lstm": lambda dim, m: LSTM(dim),
}
"""Layers by name, of width and block size or order."""


class Subject(NamedTuple):
    """One measured layer: its name in `BUILDERS` and m."""

    name: str
    m: int

    def __str__(self) -> str:
        return f"{self.name}:{self.m}"


def parse_layers(text: str) -> list[Subject]:
    """ "bdlru:4,lstm:1" -> layers; ValueError names what is wrong. "none" is none."""
    subjects = []
    for part in [] if text == "none" else text.split(","):
        name, _, m = part.strip().partition(":")
        if name not in BUILDERS or not m.isdecimal() or int(m) < 1:
            known = ", ".join(f"{builder}:m" for builder in BUILDERS)
            raise ValueError(f"layers: got {part.strip()!r}, expected {known}")
        subjects.append(Subject(name, int(m)))
    return subjects


def parse_positions(text: str) -> list[int]:
    """ "1,1000" -> growing positions of at least 1; ValueError names what is wrong."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ValueError(
            f"positions: got {text!r}, expected whole numbers of at least 1, such as {DEFAULT_POSITIONS}"
        )
    return sorted({int(word) for word in words})


def _tensors(state: State) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else list(state)


class Loop:
    """Tokens through a stack of layers, the state carried on in place; `run` takes `steps` tokens.

    Every token is drawn beforehand; a layer's output is the next one's input.
    """

    def __init__(self, layers: list[Any], batch: int, dim: int, steps: int) -> None:
        weight = next(layers[0].parameters())
        self.layers, self.steps = layers, steps
        self.tokens = torch.randn(steps, batch, dim, device=weight.device, dtype=weight.dtype)
        self.states: list[State] = [layer.initial_state(batch) for layer in layers]
        self.position = 0
        self.output = self.tokens[0]

    def run(self) -> None:
        """Take `steps` tokens; new states are copied to where the old ones lie."""
        states = list(self.states)
        for token in self.tokens:
            x = token
            for place, layer in enumerate(self.layers):
                x, states[place] = layer.step(x, states[place])
        for old, new in zip(self.states, states, strict=True):
            for target, source in zip(_tensors(old), _tensors(new), strict=True):
                target.copy_(source)
        self.output = x

    def reset(self) -> None:
        """Back to the first position."""
        self.position = 0
        for state in self.states:
            for tensor in _tensors(state):
                tensor.zero_()

    def advance(self, run: Callable[[], object], position: int) -> None:
        """Run on until `position` tokens have been taken, or a few more."""
        while self.position < position:
            run()


class Setting(NamedTuple):
    """What all measured layers share; those in `run_on` go to the last position, the others as far as `NEAR`."""

    dim: int
    batch: int
    dtype: torch.dtype
    device: torch.device
    repeats: int
    positions: list[int]
    run_on: list[Subject]


def build(subject: Subject, setting: Setting, count: int) -> list[nn.Module]:
    """`count` layers with weights of their own."""
    with setting.device:
        built = [BUILDERS[subject.name](setting.dim, subject.m) for _ in range(count)]
    return [layer.to(setting.dtype).requires_grad_(False) for layer in built]


def measure(subject: Subject, setting: Setting) -> dict[str, Any]:
    """Microseconds of a step: per layer of a stack whose weights come from memory, and of one layer by position."""
    one = build(subject, setting, 1)
    weights = sum(p.numel() for p in one[0].parameters())
    count = set_count(setting.device, weights * setting.dtype.itemsize)
    row: dict[str, Any] = {
        "layer": subject.name, "m": subject.m, "dim": setting.dim, "batch": setting.batch,
        "dtype": str(setting.dtype).removeprefix("torch."), "parameters": weights, "stack": count,
    }  # fmt: skip
    stack = Loop(build(subject, setting, count), setting.batch, setting.dim, STEPS)
    row |= _per_step(time_calls([stack.run], setting.repeats, setting.device), STEPS * count)
    _check_output(stack)
    del stack
    free(setting.device)
    return row | {"one_layer": _by_position(subject, one, setting)}


def _check_output(loop: Loop) -> None:
    if not bool(torch.isfinite(loop.output).all()):
        raise RuntimeError(f"output: not finite at position {loop.position}")


def _by_position(subject: Subject, one: list[nn.Module], setting: Setting) -> list[dict[str, Any]]:
    """One layer, the state carried on to each position and timed from there on."""
    loop = Loop(one, setting.batch, setting.dim, FAR_STEPS.get(setting.device.type, STEPS))
    take: Callable[[], object] = loop.run
    if setting.device.type == "cuda":
        take()
        take = cuda.capture(loop.run)
        loop.reset()

    def run() -> None:
        take()
        loop.position += loop.steps

    rows = []
    for position in setting.positions:
        if position > NEAR and subject not in setting.run_on:
            continue
        loop.advance(run, position - 1)
        start = loop.position + 1
        timed = time_calls([run], setting.repeats, setting.device, graph=False)
        _check_output(loop)
        rows.append({"position": start, **_per_step(timed, loop.steps)})
    return rows


def _per_step(timed: dict[str, Any], steps: int) -> dict[str, Any]:
    """Milliseconds of a run -> microseconds of one layer's step."""
    ms = timed["ms"]
    return {
        "us": {k: v if k == "samples" else 1000 * v / steps for k, v in ms.items()},
        "timed": timed["timed"],
    }


@torch.no_grad()
def run(subjects: list[Subject], setting: Setting) -> Iterator[dict[str, Any]]:
    """Measure the layers one after another; one that cannot run is a row with the reason ("failed")."""
    for subject in subjects:
        try:
            yield measure(subject, setting)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            yield {"layer": subject.name, "m": subject.m, "failed": reason(error)}
        free(setting.device)


def record(rows: list[dict[str, Any]], *, command: str, device: torch.device) -> dict[str, Any]:
    """What is kept of a measurement."""
    what = (
        "one step of one layer in microseconds: in a stack of layers whose weights do not fit the cache together, and "
        "alone, with its state carried on to far positions"
    )
    return {**header("decode", what, command, device), "layers": rows}
