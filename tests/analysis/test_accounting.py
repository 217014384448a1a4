"""Costs against numbers that are tallied by running the recurrence, operation by operation."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from statemix.analysis import accounting
from statemix.analysis.accounting import (
    flops_per_token,
    flops_per_token_of,
    mixer_parameters,
    mixers,
    parameters,
    state_size,
)
from statemix.models import LanguageModel, SwiGLU
from statemix.nn import BDLRU, HLRU, Block, ShortConvolution, Stack, build_mixer
from statemix.ops import affine_scan


class Tally(float):
    """A number that counts what is done to it."""

    done = 0

    def __add__(self, other):
        Tally.done += 1
        return Tally(float(self) + float(other))

    def __mul__(self, other):
        Tally.done += 1
        return Tally(float(self) * float(other))


def dot(row, numbers):
    products = [a * b for a, b in zip(row, numbers, strict=True)]
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total


def bdlru_step(N, m):
    for _ in range(N):
        h, v = [Tally(1)] * m, [Tally(2)] * m
        h = [dot([Tally(0.5)] * m, h) + Tally(0.5) * v[i] for i in range(m)]


def hlru_step(N, m):
    for _ in range(N):
        window = [Tally(1)] * m
        dot([Tally(0.5)] * m, window) + Tally(0.5) * Tally(2)


def multiply_adds(module):
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


TOKENS = torch.zeros(2, 7, dtype=torch.int64)


@pytest.mark.parametrize(("N", "m"), [(1, 1), (3, 1), (4, 2), (2, 5)])
def test_flops_and_state(N, m):
    """A model's FLOPs are those of its linear layers and of its recurrences."""
    cases = (
        (lambda dim: BDLRU(dim, block_size=m, num_blocks=N), bdlru_step),
        (lambda dim: HLRU(dim, order=m, num_channels=N), hlru_step),
    )
    for build, step in cases:
        Tally.done = 0
        step(N, m)
        model = LanguageModel(6, 8, build, depth=2)
        assert flops_per_token(model, TOKENS) == 2 * multiply_adds(model) + 2 * Tally.done
        assert state_size(model) == 2 * N * m


def test_flops_of_an_affine_scan():
    class Scan(nn.Module):
        def forward(self, tokens):
            return affine_scan(torch.ones(*tokens.shape, 3, 2, 2), torch.ones(*tokens.shape, 3, 2))

    assert flops_per_token(Scan(), TOKENS) == 3 * 2 * 2**2


def test_flops_of_attention_and_lstm_are_seen():
    """On the CPU both are fused operators that torch's counter does not know."""

    class Attention(nn.Module):
        def forward(self, tokens):
            q = torch.ones(2, 1, tokens.shape[1], 4)
            return nn.functional.scaled_dot_product_attention(q, q, q)

    assert flops_per_token(Attention(), TOKENS) == 2 * 2 * 7 * 4  # q k and the values, T times each

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)

        def forward(self, tokens):
            return self.lstm(torch.ones(*tokens.shape, 3, dtype=torch.float64))

    assert flops_per_token(Recurrent(), TOKENS) == 2 * 4 * 5 * (3 + 5)


def test_a_model_is_the_sum_of_its_mixers():
    model = LanguageModel(6, 16, lambda dim: BDLRU(dim, block_size=2, num_blocks=3), depth=3)
    one = BDLRU(16, block_size=2, num_blocks=3)
    assert len(mixers(model)) == 3
    for count in (state_size, mixer_parameters):
        assert count(model) == 3 * count(one)
    assert parameters(model) == sum(p.numel() for p in model.parameters())
    assert parameters(one) == mixer_parameters(one) == 3 * 2 * (17 * 3 + 2 * 16)


def test_frozen_parameters_and_modules_without_mixers():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert parameters(layer) == 6
    assert state_size(layer) == mixer_parameters(layer) == len(mixers(SwiGLU(8))) == 0


def test_a_state_that_grows_is_counted_at_its_context():
    class Cache(nn.Linear):
        def initial_state(self, batch_size):
            return torch.zeros(batch_size, 0, 2, 4)

        def step(self, x, state=None):
            raise AssertionError("nothing is run")

    assert state_size(Cache(4, 4), context=10) == 10 * 2 * 4


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("m", [1, 3])
def test_parameters_are_those_of_the_paper(m, selective):
    """d(values + read-out) for both; gates d·G + G when they follow the input, G when they are free."""
    d, N = 8, 5
    gates = {"bdlru": N * m * (m + 1), "hlru": N * (m + 1)}
    gates = {name: G * (d + 1) if selective else G for name, G in gates.items()}
    block = BDLRU(d, block_size=m, num_blocks=N, selective=selective)
    assert parameters(block) == gates["bdlru"] + 2 * d * N * m
    order = HLRU(d, order=m, num_channels=N, selective=selective)
    assert parameters(order) == gates["hlru"] + d * N + d * N * m


def test_a_subclass_of_a_mixer_costs_the_same():
    class Mine(BDLRU):
        pass

    assert state_size(Mine(8, block_size=2, num_blocks=3)) == 6
    assert mixers(build_mixer("hlru", 8, order=2))


def test_the_example_runs():
    assert doctest.testmod(accounting).failed == 0


def test_blocks_are_counted_by_their_parts():
    """A block is no mixer of its own; its convolution is one, and its gate belongs to none."""
    block = Block(8, BDLRU(8, block_size=2), conv_size=4, output_gate=True, mlp=True)
    for module in (
        block,
        Stack(block),
        LanguageModel(5, 8, lambda dim: block.mixer, depth=1, block={"conv_size": 4}),
    ):
        assert [type(part) for part in mixers(module)] == [ShortConvolution, BDLRU]
        assert mixer_parameters(module) == parameters(block.mixer) + 8 * 4
        assert state_size(module) == 8 + 8 * 3


@pytest.mark.parametrize("layer", [lambda dim: BDLRU(dim, block_size=4), lambda dim: HLRU(dim, order=3)])
def test_fake_tensors_have_the_same_flops(layer):
    def build():
        return LanguageModel(11, 16, layer, depth=2)

    expected = flops_per_token(build(), torch.zeros(2, 24, dtype=torch.int64))
    assert flops_per_token_of(build, 2, 24) == expected > 0
    assert torch.get_default_dtype() == torch.float32
