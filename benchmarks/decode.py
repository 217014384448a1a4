"""One token at a time: the time of a layer's step, in a stack of layers and at far positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import Setup, free, set_count
from benchmarks.records import Record, header
from benchmarks.shapes import parse_named
from statemix.nn import BDLRU, HLRU

WHAT = (
    "one step of one layer in microseconds: in a stack of layers whose weights do not fit the cache together, and "
    "alone, with its state carried on to far positions"
)

DEFAULT_LAYERS = "bdlru:1,bdlru:2,bdlru:4,bdlru:8,bdlru:16,hlru:4,lstm:1"
DEFAULT_POSITIONS = "1,1000,1000000"

NEAR = 10_000
"""Layers that do not run on are measured at positions up to here."""

STEPS = 8
"""Tokens in one run of a stack."""

FAR_STEPS = {"cuda": 128}
"""Tokens in one run of a layer that runs on, where more than `STEPS`."""


class LSTMStep(nn.Module):
    """torch's LSTM cell with the interface of a layer: the baseline."""

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
    "lstm": lambda dim, m: LSTMStep(dim),
}
"""Layers by name, of width and block size or order."""


class Layer(NamedTuple):
    """One measured layer: its name in `BUILDERS` and m."""

    name: str
    m: int

    def build(self, sizes: Sizes, setup: Setup, count: int) -> list[nn.Module]:
        """`count` layers with weights of their own."""
        with setup.device:
            built = [BUILDERS[self.name](sizes.dim, self.m) for _ in range(count)]
        return [layer.to(setup.torch_dtype).requires_grad_(False) for layer in built]


class Sizes(NamedTuple):
    """Width and batch; layers in `run_on` go to the last position, the others as far as `NEAR`."""

    dim: int
    batch: int
    positions: list[int]
    run_on: list[Layer]


def parse_layers(text: str) -> list[Layer]:
    """ "bdlru:4,lstm:1" -> layers; ValueError naming a wrong part. "none" is none."""
    named = [] if text == "none" else parse_named("layers", text, BUILDERS)
    return [Layer(name, numbers[0]) for name, numbers in named]


def _tensors(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else list(state)


class Loop:
    """Tokens through a stack of layers, the state carried on in place; `run` takes `steps` tokens.

    Every token is drawn beforehand; a layer's output is the next one's input.
    """

    def __init__(self, layers: list[Any], batch: int, dim: int, steps: int) -> None:
        weight = next(layers[0].parameters())
        self.layers, self.steps = layers, steps
        self.tokens = torch.randn(steps, batch, dim, device=weight.device, dtype=weight.dtype)
        self.states: list[Any] = [layer.initial_state(batch) for layer in layers]
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

    def check_output(self) -> None:
        """RuntimeError if the last output is not finite."""
        if not bool(torch.isfinite(self.output).all()):
            raise RuntimeError(f"output: not finite at position {self.position}")


@torch.no_grad()
def measure(layer: Layer, sizes: Sizes, setup: Setup) -> Record:
    """Microseconds of a step: per layer of a stack whose weights exceed the cache, and of one layer by position."""
    one = layer.build(sizes, setup, 1)
    weights = sum(p.numel() for p in one[0].parameters())
    count = set_count(setup.device, weights * setup.torch_dtype.itemsize)
    row: Record = {"dim": sizes.dim, "batch": sizes.batch, "dtype": setup.dtype}
    row |= {"parameters": weights, "stack": count}
    stack = Loop(layer.build(sizes, setup, count), sizes.batch, sizes.dim, STEPS)
    row |= _per_step(setup.sample([stack.run]), STEPS * count)
    stack.check_output()
    del stack
    free(setup.device)
    return row | {"one_layer": _by_position(layer, one, sizes, setup)}


def _by_position(layer: Layer, one: list[nn.Module], sizes: Sizes, setup: Setup) -> list[Record]:
    """One layer, the state carried on to each position and timed from there on."""
    loop = Loop(one, sizes.batch, sizes.dim, FAR_STEPS.get(setup.device.type, STEPS))
    take: Callable[[], object] = loop.run
    if setup.device.type == "cuda":
        loop.run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loop.run()
        take = graph.replay
        loop.reset()

    def run() -> None:
        take()
        loop.position += loop.steps

    rows = []
    for position in sizes.positions:
        if position > NEAR and layer not in sizes.run_on:
            continue
        while loop.position < position - 1:
            run()
        start = loop.position + 1
        timed = setup.sample([run], cuda_graph=False)
        loop.check_output()
        rows.append({"position": start, **_per_step(timed, loop.steps)})
    return rows


def _per_step(timed: Record, steps: int) -> Record:
    """Milliseconds of a run -> microseconds of one layer's step."""
    us = {k: v if k == "samples" else 1000 * v / steps for k, v in timed["ms"].items()}
    return {"us": us, "timed": timed["timed"]}


def new_record(setup: Setup) -> Record:
    """A record without rows."""
    return {**header("decode", WHAT, setup.device), "layers": []}
