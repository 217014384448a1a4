"""Costs against numbers that are tallied by running the recurrence, operation by operation."""

from __future__ import annotations

import pytest
from torch import nn

from statemix.analysis.accounting import flops_per_step, mixer_parameters, mixers, parameters, state_size
from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU


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


@pytest.mark.parametrize(("N", "m"), [(1, 1), (3, 1), (4, 2), (2, 5)])
def test_flops_and_state(N, m):
    cases = (
        (BDLRU(8, block_size=m, num_blocks=N), bdlru_step),
        (HLRU(8, order=m, num_channels=N), hlru_step),
    )
    for layer, step in cases:
        Tally.done = 0
        step(N, m)
        assert flops_per_step(layer) == Tally.done
        assert state_size(layer) == layer.initial_state(1).numel() == N * m


def test_a_model_is_the_sum_of_its_mixers():
    model = LanguageModel(6, 16, lambda dim: BDLRU(dim, block_size=2, num_blocks=3), depth=3)
    one = BDLRU(16, block_size=2, num_blocks=3)
    assert len(mixers(model)) == 3
    for count in (flops_per_step, state_size, mixer_parameters):
        assert count(model) == 3 * count(one)
    assert parameters(model) == sum(p.numel() for p in model.parameters())
    assert parameters(one) == mixer_parameters(one) == 3 * 2 * (17 * 3 + 2 * 16)


def test_frozen_parameters_and_modules_without_mixers():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert parameters(layer) == 6
    assert flops_per_step(layer) == state_size(layer) == mixer_parameters(layer) == 0


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

    sizes = {"block_size": 2, "num_blocks": 3}
    assert flops_per_step(Mine(8, **sizes)) == flops_per_step(BDLRU(8, **sizes)) > 0
