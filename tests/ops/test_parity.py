"""Both backends against plain float64 loops written here."""

from __future__ import annotations

import pytest
import torch

from statemix.ops import NORMALIZATIONS, normalize
from tests.ops.cases import (
    BACKENDS,
    FIRST,
    HARD_CASES,
    RECURRENCES,
    by_name,
    inputs,
    names,
    relative,
    run,
    step,
)
from tests.ops.loops import ALL, HARD, loop, normalized_row

CASES = [(r, n) for r in RECURRENCES for n in names(r)] + HARD_CASES
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def test_all_seven_are_there():
    assert set(NORMALIZATIONS) == set(ALL)


@pytest.mark.parametrize("name", [*ALL, *HARD])
def test_normalize_is_the_table(name):
    gates = inputs("hlru", m=4)[0] * 3
    want = torch.tensor(
        [normalized_row(row, name) for row in gates.flatten(0, -2).tolist()], dtype=torch.float64
    )
    assert relative(normalize(gates, **by_name(name)).flatten(0, -2), want) < 1e-14


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("recurrence", "name"), CASES)
def test_states(recurrence, name, dtype, backend):
    gates, values, state = inputs(recurrence, B=2, T=37, N=5, m=3, dtype=dtype)
    if name == "none" and recurrence != "affine":
        gates = gates / 4
    states, final = run(recurrence, gates, values, state, name, backend=backend)
    want_states, want_final = loop(recurrence, gates, values, state, name)
    assert states.dtype == values.dtype
    assert final.dtype == state.dtype
    assert relative(states, want_states) < TOLERANCE[dtype]
    assert relative(final, want_final) < min(TOLERANCE[dtype], 2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 16, 33])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_every_m(recurrence, name, m, backend):
    gates, values, state = inputs(recurrence, B=1, T=5, N=2, m=m)
    got = run(recurrence, gates, values, state, name, backend=backend)
    for have, want in zip(got, loop(recurrence, gates, values, state, name), strict=True):
        assert relative(have, want) < 1e-13


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("N", [1, 63, 64, 65, 130])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_widths_around_a_tile(recurrence, name, N, backend):
    gates, values, state = inputs(recurrence, B=1, T=4, N=N, m=2)
    got = run(recurrence, gates, values, state, name, backend=backend)
    for have, want in zip(got, loop(recurrence, gates, values, state, name), strict=True):
        assert relative(have, want) < 1e-13


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_no_initial_state_is_zeros(recurrence, backend):
    gates, values, state = inputs(recurrence)
    for have, want in zip(
        run(recurrence, gates, values, None, backend=backend),
        run(recurrence, gates, values, torch.zeros_like(state), backend=backend),
        strict=True,
    ):
        assert torch.equal(have, want)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [{"B": 0}, {"N": 0}, {"T": 0}], ids=str)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_empty(recurrence, name, size, backend):
    gates, values, state = (x.requires_grad_() for x in inputs(recurrence, **size))
    states, final = run(recurrence, gates, values, state, name, backend=backend)
    assert states.shape == values.shape
    (states.sum() + final.sum()).backward()
    assert gates.grad.shape == gates.shape
    if "T" in size:
        assert torch.equal(final, state)
        assert torch.equal(state.grad, torch.ones_like(state))


def test_order_one_is_block_size_one():
    gates, values, state = inputs("hlru", m=1)
    for name in (*ALL, *HARD):
        narrow = run("hlru", gates, values, state, name)
        wide = run("bdlru", gates.unsqueeze(-2), values.unsqueeze(-1), state, name)
        assert torch.equal(narrow[0], wide[0].squeeze(-1))
        assert torch.equal(narrow[1], wide[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["softmax", "hard:softmax", "hard:silu"])
def test_steps(name, backend):
    for recurrence in ("bdlru", "hlru"):
        gates, values, state = inputs(recurrence, T=6)
        want = loop(recurrence, gates, values, state, name)[1]
        for t in range(6):
            state = step(recurrence, gates[:, t], values[:, t], state, name, backend=backend)
        assert relative(state, want) < 1e-14


def test_large_gates_do_not_overflow():
    for dtype in (torch.float32, torch.float64):
        gates, values, state = inputs("bdlru", T=4, dtype=dtype)
        for backend in BACKENDS:
            for name in ("softmax", "sigmoid", "tanh", "silu"):
                for factor in (1e3, -1e3):
                    states, _ = run("bdlru", gates * factor, values, state, name, backend=backend)
                    assert torch.isfinite(states).all(), (dtype, backend, name, factor)


def test_far_negative_sigmoid_rows_stay_normalised():
    """sigmoid(-500) underflows in float32; the quotient of two such numbers does not."""
    gates = torch.full((1, 1, 1, 1, 2), -500.0)
    gates[..., 0] = -501.0
    for backend in BACKENDS:
        state, _ = run("bdlru", gates, torch.ones(1, 1, 1, 1), None, "sigmoid", backend=backend)
        assert abs(state.item() - 1 / (1 + 2.718281828459045**-1)) < 1e-5
