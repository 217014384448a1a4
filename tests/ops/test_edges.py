"""Gates at the ends of the range of numbers: subnormal, huge, far-negative, infinite and NaN."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

pytest.importorskip("numba")

from statemix.ops import bdlru_scan
from statemix.ops.normalization import NORMALIZATIONS, normalize
from tests.ops.cases import BACKENDS, inputs, run
from tests.ops.loops import ALL, HARD, loop

INF, NAN = math.inf, math.nan
BOUNDED = tuple(name for name in ALL if name != "none")
VANISHING = ("tanh", "linear", "silu")
RESULTS = ("states", "final", "d_gates", "d_values", "d_state")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}

ROWS = {
    "subnormal": [
        [1e-40, 1e-40, 1e-40],
        [-1e-42, 3e-41, 2e-40],
        [1e-45, 0, 0],
        [1e-45, 1e-45, -1e-45],
        [1e-38, -1e-38, 2e-38],
    ],
    "subnormal in half precision": [[6e-8, 1e-7, -6e-8], [6e-5, -6e-5, 6e-8], [0, 0, 6e-8]],
    "subnormal beside others": [[1e-40, 1.0, -2.0], [0, 1e-42, 1e-30], [1e-20, 1e-40, 0], [0, 0, 0]],
    "small": [[1e-19, 2e-19, -1e-19], [1e-30, 1e-30, -2e-30], [1e-18, 1e-19, 2e-19]],
    "far-negative": [
        [0, -104, 0],
        [0, -104, -105],
        [-104, -103.9, -104.2],
        [-300, -310, 0],
        [1e-44, -104, 0],
        [1e-44, -300, 0],
        [1e-40, -90, -95],
        [-88, -87.5, 0],
        [0, -1e4, -1e4],
        [-1e30, -1e30, -2e30],
    ],
    "huge": [[3e38, 3e38, -3e38], [1e30, -1e20, 1e38], [3e38, 0, 1], [1e19, 1e20, -1e18]],
}


def case(recurrence, rows, dtype, *, N=3, T=3):
    """Inputs of m = 2 with the given rows of gates among ordinary ones, and gradients of both results."""
    gates, values, state = inputs(recurrence, B=1, T=T, N=N, m=2, dtype=torch.float64)
    flat = gates.view(-1, 3)
    for k, row in enumerate(rows):
        flat[(2 * k + 1) % len(flat)] = torch.tensor(row, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (values, state)]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return gates.to(dtype), values.to(dtype), state.to(wide), grads[0].to(dtype), grads[1].to(wide)


def results(recurrence, name, backend, arguments, dtype=None):
    """Both results and all gradients by name; `dtype`: everything in that one."""
    if dtype is not None:
        arguments = [x.to(dtype) for x in arguments]
    leaves = [x.clone().requires_grad_() for x in arguments[:3]]
    outputs = run(recurrence, *leaves, name, backend=backend)
    grads = torch.autograd.grad(outputs, leaves, arguments[3:])
    return dict(zip(RESULTS, [x.detach() for x in (*outputs, *grads)], strict=True))


def check_close(got, want, dtype):
    """Finite everywhere and near float64; gradients of gates, which may exceed every number, row by row."""
    for name in RESULTS:
        found, true = got[name], want[name]
        assert torch.isfinite(found).all(), name
        largest = torch.finfo(found.dtype).max
        unit = true.abs().mean()
        if name == "d_gates":
            unit = true.abs().amax(-1, keepdim=True) + true[true.abs() < 1e3].abs().mean()
        off = (found.double() - true.clamp(-largest, largest)).abs() / (unit + 1e-30)
        assert off.max() < TOLERANCE[dtype], (name, float(off.max()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ROWS)
def test_every_row_agrees_with_float64(kind, dtype, backend):
    rows = [row for row in ROWS[kind] if max(map(abs, row)) <= torch.finfo(dtype).max]
    if not rows:
        pytest.skip("none of these rows is finite in this dtype")
    for recurrence, name in itertools.product(("bdlru", "hlru"), (*BOUNDED, *HARD)):
        arguments = case(recurrence, rows, dtype)
        want = results(recurrence, name, "reference", arguments, torch.float64)
        check_close(results(recurrence, name, backend, arguments), want, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exponent", [-1070, -1040, -300, 300, 1020])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_a_power_of_two_cancels_in_float64(recurrence, exponent, backend):
    """Linear gates times a power of two are the same weights, to where bits are lost."""
    rows = [[1.0, -2.0, 0.5], [3.0, 1.0, 1.0], [0.0, -1.0, 2.0]]
    scaled = [[math.ldexp(x, exponent) for x in row] for row in rows]
    want = results(recurrence, "linear", "reference", case(recurrence, rows, torch.float64))
    got = results(recurrence, "linear", backend, case(recurrence, scaled, torch.float64))
    assert torch.isfinite(got.pop("d_gates")).all()
    for name, found in got.items():
        assert torch.allclose(found, want[name], rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["tanh", "linear"])
def test_a_row_of_equal_subnormal_numbers_is_a_mean(name, backend):
    gates = torch.full((1, 1, 1, 3, 4), 1e-40, requires_grad=True)
    values = torch.full((1, 1, 1, 3), 2.0)
    state = torch.full((1, 1, 3), 2.0)
    states, _ = bdlru_scan(gates, values, state, normalization=name, backend=backend)
    assert torch.allclose(states, torch.full_like(states, 2.0), rtol=1e-6)
    states.sum().backward()
    assert torch.isfinite(gates.grad).all()


WEIGHTS = [
    ("silu", [0.0, -104.0], [0.0, -1.0]),
    ("silu", [0.0, -1000.0, 0.0], [0.0, -1.0, 0.0]),
    ("silu", [-200.0, -200.0], [-0.5, -0.5]),
    ("silu", [2.0**-149, -(2.0**-149)], [0.5, -0.5]),
    ("linear", [3e38, -3e38], [0.5, -0.5]),
    ("relu", [3e38, 3e38], [0.5, 0.5]),
    ("tanh", [2.0**-149, 2.0**-149, 0.0], [0.5, 0.5, 0.0]),
    ("linear", [0.0, 0.0], [0.0, 0.0]),
    ("softmax", [-INF, 0.0, 0.0], [0.0, 0.5, 0.5]),
    ("sigmoid", [-INF, INF, INF], [0.0, 0.5, 0.5]),
    ("tanh", [-INF, INF, 0.0], [-0.5, 0.5, 0.0]),
]


@pytest.mark.parametrize(("name", "row", "want"), WEIGHTS, ids=str)
def test_the_definition_at_the_edge(name, row, want):
    got = normalize(torch.tensor(row), name)
    assert torch.allclose(got, torch.tensor(want), rtol=1e-6, atol=0), got


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_the_definition_computes_half_precision_in_float32(name, dtype):
    gates = torch.cat([torch.randn(20, 4), 1e-6 * torch.randn(5, 4)]).to(dtype)
    got = normalize(gates, name)
    assert got.dtype == dtype
    assert torch.equal(got, normalize(gates.float(), name).to(dtype))


SPECIAL = [
    *[[s if j == k else x for j, x in enumerate((0.5, -0.7, 1.2))] for s in (INF, -INF, NAN) for k in range(3)],
    *[[s, s, s] for s in (INF, -INF, NAN)],
    *[[0, 0, s] for s in (INF, -INF, NAN)],
    *[[-1, s, -200] for s in (INF, -INF, NAN)],
    *[[s, 1e-40, 0] for s in (INF, -INF, NAN)],
    [INF, -INF, 1],
    [-INF, INF, NAN],
    [-INF, -INF, 3],
]  # fmt: skip


def check_same_places(got, want):
    """NaN and infinities in the same places, the rest the same within rounding."""
    for name in RESULTS:
        a, b = got[name], want[name]
        assert torch.equal(a.isnan(), b.isnan()), name
        assert torch.equal(a.isinf(), b.isinf()), name
        finite = torch.isfinite(b)
        assert torch.allclose(a[finite], b[finite], rtol=TOLERANCE[a.dtype], atol=TOLERANCE[a.dtype]), name


@pytest.mark.parametrize("followed_by", ["ordinary gates", "zeros"])
@pytest.mark.parametrize("name", [*ALL, *HARD])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_nan_and_infinity_come_out_in_the_same_places(recurrence, name, followed_by):
    for row in SPECIAL:
        arguments = case(recurrence, [row], torch.float32)
        if followed_by == "zeros":
            arguments[0][:, 1:] = 0
            arguments[2][:] = 0
        want = results(recurrence, name, "reference", arguments)
        check_same_places(results(recurrence, name, "cpu", arguments), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*ALL, *HARD])
def test_nan_and_infinity_in_half_precision(name, dtype):
    for row in SPECIAL:
        arguments = case("hlru", [row], dtype)
        want = results("hlru", name, "reference", arguments)
        check_same_places(results("hlru", name, "cpu", arguments), want)


@pytest.mark.parametrize("name", [*BOUNDED, *HARD])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_edge_rows_anywhere_in_a_tile(recurrence, name):
    """Wide enough for vectors and for two work items, long enough for more than one tile."""
    rows = [*itertools.chain(*ROWS.values()), *SPECIAL]
    arguments = case(recurrence, rows, torch.float32, N=70, T=9)
    every = [results(recurrence, name, backend, arguments) for backend in ("cpu", "reference")]
    small = torch.nn.functional.silu(arguments[0]).abs().sum(-1, keepdim=True) < 1e-3
    for found in every:  # there a gradient is rounding times 1 / S, and its size another test's matter
        found["d_gates"] *= torch.where(small, 0.0, 1.0)
    check_same_places(*every)


@pytest.fixture
def flushing():
    """Subnormal numbers are zeros, as users set it for speed."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("flushing")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*BOUNDED, *HARD])
def test_flushed_subnormal_numbers_make_no_nan(name, backend):
    for recurrence, kind in itertools.product(("bdlru", "hlru"), ROWS):
        got = results(recurrence, name, backend, case(recurrence, ROWS[kind], torch.float32))
        for key, found in got.items():
            assert torch.isfinite(found).all(), (recurrence, kind, key)


@pytest.mark.parametrize("name", ["softmax", "linear", "hard:softmax", "hard:linear"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_values_and_states_that_are_not_finite(recurrence, name):
    """What a row does not choose still counts times zero."""
    for place, special in itertools.product((1, 2), (INF, -INF, NAN)):
        arguments = case(recurrence, [], torch.float64, T=5)
        arguments[place][0, -1].view(-1)[0] = special
        for backend in BACKENDS:
            found = run(recurrence, *arguments[:3], name, backend=backend)
            want = run(recurrence, *arguments[:3], name, backend="reference")
            for have, exact in zip(found, want, strict=True):
                torch.testing.assert_close(have, exact, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in HARD if name != "hard:silu"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_of_equal_weights_the_first_counts(recurrence, name, backend):
    """Whole gates: ties and rows of zeros."""
    gates, values, state = inputs(recurrence, B=1, T=20, N=9, m=4)
    gates = gates.round()
    states, _ = run(recurrence, gates, values, state, name, backend=backend)
    assert torch.equal(states, loop(recurrence, gates, values, state, name)[0])
