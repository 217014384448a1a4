"""The two layers: parity with a plain loop over their own weights, carried state, packing, decoding, layout."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from statemix.nn import BDLRU, HLRU, MIXERS, build_mixer
from tests.ops.cases import relative
from tests.ops.loops import ALL, BOUNDED, loop, normalized_row

LAYERS = {
    "bdlru": lambda **k: BDLRU(6, block_size=3, num_blocks=4, **k),
    "bdlru-diagonal": lambda **k: BDLRU(6, block_size=1, num_blocks=4, **k),
    "hlru-window": lambda **k: HLRU(6, order=3, num_channels=4, **k),
    "hlru-newest": lambda **k: HLRU(6, order=3, num_channels=4, readout="newest", **k),
    "bdlru-free": lambda **k: BDLRU(6, block_size=3, num_blocks=4, selective=False, **k),
    "hlru-free": lambda **k: HLRU(6, order=3, num_channels=4, selective=False, **k),
    "bdlru-start": lambda **k: BDLRU(6, block_size=3, num_blocks=4, learned_initial_state=True, **k),
    "hlru-start": lambda **k: HLRU(6, order=3, num_channels=4, learned_initial_state=True, **k),
}


class CountOperators(TorchDispatchMode):
    """The operators that do work: views, and what only says that it is one, are left out."""

    def __enter__(self):
        self.calls = []
        return super().__enter__()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        if not function.is_view and name not in ("_unsafe_view", "detach"):
            self.calls.append(name)
        return function(*arguments, **(options or {}))


def build(kind, seed=0, **options):
    torch.manual_seed(seed)
    return LAYERS[kind](**options).double()


def one_hot(gates, name):
    """Rows that keep the first of their largest weights alone, with its sign."""
    rows = gates.detach().flatten(0, -2)
    hard = torch.zeros_like(rows)
    for out, row in zip(hard, rows.tolist(), strict=True):
        weights = normalized_row(row, name)
        largest = max(range(len(weights)), key=lambda place: abs(weights[place]))
        out[largest] = (weights[largest] > 0) - (weights[largest] < 0)
    return hard.view_as(gates)


def by_hand(layer, x, state):
    """The layer as its formulas say, from its parameters and the plain loop."""
    m, N = layer.initial_state(1).shape[2], layer.initial_state(1).shape[1]
    block = isinstance(layer, BDLRU)
    rows = (N, m) if block else (N,)
    if layer.selective:  # rows ordered (column, block, row)
        raw = x @ layer.gates.weight.T + layer.gates.bias
    else:
        raw = layer.free_gates.flatten().expand(*x.shape[:2], -1)
    gates = raw.reshape(*x.shape[:2], m + 1, *rows).movedim(2, -1)
    name = layer.normalization
    if layer.hard:
        gates, name = one_hot(gates, name), "none"
    values = (x @ layer.values.weight.T).reshape(*x.shape[:2], *rows)
    states, final = loop("bdlru" if block else "hlru", gates, values, state, name)
    weight = layer.readout_projection.weight
    if block:
        return states.flatten(-2) @ weight.T, final
    taps = weight.shape[1] // N
    before = state[..., :taps].flip(-1).transpose(1, 2)  # [B, taps, N], oldest first
    history = torch.cat([before, states], dim=1)
    y = sum(
        history[:, taps - k : taps - k + x.shape[1]] @ weight[:, k * N : (k + 1) * N].T for k in range(taps)
    )
    return y, final


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_is_its_formula(kind, name):
    layer = build(kind, normalization=name, gate_bias=-0.5)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    state = torch.randn_like(layer.initial_state(2))
    y, final = layer(x, state)
    want_y, want_final = by_hand(layer, x, state)
    assert relative(y, want_y) < 1e-12
    assert relative(final, want_final) < 1e-12
    y, _ = layer(x)
    assert relative(y, by_hand(layer, x, layer.initial_state(2))[0]) < 1e-12


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("kind", ["bdlru", "bdlru-free", "hlru-window", "hlru-start"])
def test_the_hard_layer_is_its_formula(kind, name):
    layer = build(kind, normalization=name, hard=True)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    for state in (None, torch.randn_like(layer.initial_state(2))):
        want_y, want_final = by_hand(layer, x, layer.initial_state(2) if state is None else state)
        y, final = layer(x, state)
        assert relative(y, want_y) < 1e-12
        assert relative(final, want_final) < 1e-12
        for t in range(9):
            y, state = layer.step(x[:, t], state)
            torch.testing.assert_close(y, want_y[:, t])
        torch.testing.assert_close(state, want_final)
    weights = layer.transitions(x) if isinstance(layer, BDLRU) else layer.coefficients(x)
    assert set(weights.unique().tolist()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("kind", ["bdlru", "hlru-window"])
def test_gradients_of_hard_rows_are_those_of_soft_ones(kind):
    """Of one token from a state: of the row alone, at the same state."""
    hard, soft = build(kind, hard=True), build(kind)
    x, state = torch.randn(2, 1, 6, dtype=torch.float64), torch.randn_like(soft.initial_state(2))
    ((_, a), (_, b)) = hard(x, state), soft(x, state)
    torch.testing.assert_close(
        torch.autograd.grad(a.sum(), hard.gates.weight), torch.autograd.grad(b.sum(), soft.gates.weight)
    )
    assert not torch.equal(a, b)


STARTS = {"bdlru-start": "bdlru", "hlru-start": "hlru-window"}
"""Layers with a learned initial state, and those without it."""


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("kind", STARTS)
def test_every_sequence_starts_from_the_parameter(kind, hard):
    """Whole, packed and token by token, with gradients; a layer without it, given the same state, agrees."""
    layer, plain = build(kind, hard=hard), build(STARTS[kind], hard=hard)
    plain.load_state_dict({name: p for name, p in layer.state_dict().items() if name != "initial"})
    initial = torch.nn.Parameter(layer.initial.detach().clone())
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    calls = {
        "whole": lambda one, start: one(x, start(1)),
        "batch": lambda one, start: one(x.view(7, 1, 6).repeat(1, 3, 1), start(7)),
        "packed": lambda one, start: one(x, start(4), torch.tensor([0, 2, 2, 6, 7])),
        "nothing": lambda one, start: one(x[:, :0], start(1)),
        "token": lambda one, start: one.step(x[0], start(7)),
    }
    for name, call in calls.items():
        have, want = call(layer, lambda size: None), call(plain, lambda size: initial.repeat(size, 1, 1))
        again = call(layer, layer.initial_state)
        grads = [
            torch.autograd.grad(sum(one.sin().sum() for one in outputs), start)
            for outputs, start in ((have, layer.initial), (want, initial), (again, layer.initial))
        ]
        for a, b, c in zip((*have, *grads[0]), (*want, *grads[1]), (*again, *grads[2]), strict=True):
            torch.testing.assert_close(a, b, msg=name)
            torch.testing.assert_close(a, c, msg=name)


@pytest.mark.parametrize("kind", STARTS)
def test_a_first_state_may_be_changed(kind):
    layer = build(kind)
    state, before = layer.initial_state(3), layer.initial.detach().clone()
    assert state.is_contiguous() and state.dtype == torch.float64 and (state == before).all()
    state[1] = 0
    assert (state[0] == before).all() and torch.equal(layer.initial, before)
    state.sum().backward()
    assert (layer.initial.grad == 2).all()
    assert layer.initial_state(0).shape == (0, *before.shape)


@given(st.sampled_from(sorted(LAYERS)), st.lists(st.integers(0, 9), max_size=3), st.integers(0, 2**31))
def test_any_cut_and_every_step_is_the_whole(kind, cuts, seed):
    layer = build(kind, seed)
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    start = torch.randn_like(layer.initial_state(2))
    whole, final = layer(x, start)
    parts, state = [], start
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 9], strict=True):
        part, state = layer(x[:, begin:end], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, final)
    state = start
    for t in range(9):
        y, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t])
    torch.testing.assert_close(state, final)


@given(st.sampled_from(sorted(LAYERS)), st.lists(st.integers(0, 6), min_size=1, max_size=5), st.booleans())
def test_packed_is_separate(kind, lengths, carried):
    layer = build(kind)
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    x = torch.randn(1, sum(lengths), 6, dtype=torch.float64)
    states = torch.randn_like(layer.initial_state(len(lengths))) if carried else None
    y, final = layer(x, states, cu_seqlens=bounds)
    for s, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        part, last = layer(x[:, begin:end], states[s : s + 1] if carried else None)
        torch.testing.assert_close(y[:, begin:end], part)
        torch.testing.assert_close(final[s : s + 1], last)


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_flow_everywhere(kind):
    layer = build(kind)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    state = None if kind in STARTS else torch.randn_like(layer.initial_state(2)).requires_grad_()

    def function(x, state, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x, state))

    names, parameters = zip(*layer.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(function, (x, state, *parameters))


@pytest.mark.parametrize("kind", LAYERS)
def test_no_state_stays_on_the_module(kind):
    layer = build(kind)
    before = copy.deepcopy(layer.state_dict()), set(vars(layer))
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    first, _ = layer(x)
    assert torch.equal(layer(x)[0], first)
    assert set(vars(layer)) == before[1]
    assert all(
        torch.equal(a, b) for a, b in zip(layer.state_dict().values(), before[0].values(), strict=True)
    )
    assert list(layer.buffers()) == []


@pytest.mark.parametrize("kind", LAYERS)
def test_on_the_cpu_n_is_innermost(kind):
    """Gates, values and the states that reach the read-out have N innermost in memory: nothing is copied."""
    layer = build(kind)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    assert layer.raw_values(x).movedim(2, -1).is_contiguous()
    gates = layer.raw_gates(x)
    if layer.selective:
        assert gates.movedim(2, -1).is_contiguous()
    assert gates.stride(2) == 1


@torch.no_grad()
@pytest.mark.parametrize("kind", LAYERS)
def test_elsewhere_gate_planes_are_outermost(kind):
    """Parameters are used as they are kept, projections come out in the fast format, states are not copied."""
    layer = LAYERS[kind](device="meta")
    x = torch.empty(2, 5, 6, device="meta")
    with CountOperators() as counted:
        values, gates = layer.raw_values(x), layer.raw_gates(x)
    assert counted.calls == (["mm", "addmm"] if layer.selective else ["mm"])
    assert values.is_contiguous()
    assert gates[:1, :1].movedim(-1, 2).is_contiguous()
    with CountOperators() as counted:
        y, state = layer(x)
    assert y.shape == x.shape
    assert state.is_contiguous()
    if isinstance(layer, BDLRU):
        assert set(counted.calls) <= {"mm", "addmm", "new_zeros", "bdlru_scan"}


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_step_elsewhere_launches_little(kind, dtype):
    """The projections, the scan, the read-out, and for a window of several states its transposition."""
    layer = LAYERS[kind](device="meta", dtype=dtype)
    x, state = torch.empty(2, 6, device="meta", dtype=dtype), layer.initial_state(2)
    with CountOperators() as counted:
        y, state = layer.step(x, state)
    assert (y.shape, y.dtype, state.dtype) == ((2, 6), dtype, torch.float32)
    assert state.is_contiguous()
    window = kind in ("hlru-window", "hlru-free", "hlru-start")
    assert len(counted.calls) == 3 + layer.selective + window, counted.calls


@pytest.mark.parametrize("kind", LAYERS)
def test_half_precision_and_autocast(kind):
    layer = build(kind).float()
    x = torch.randn(2, 5, 6)
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x)
        one, _ = layer.step(x[:, 0], layer.initial_state(2))
    assert y.dtype == one.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert relative(y, exact) < 0.05
    y, state = layer.bfloat16()(x.bfloat16())
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert relative(y, exact) < 0.05


@pytest.mark.parametrize("kind", ["bdlru-free", "hlru-newest", *STARTS])
def test_compile(kind):
    """Plain ones are compiled in `tests/ecosystem/test_weights.py`, for any length in `test_export.py`."""
    layer = build(kind, hard=kind == "hlru-start").float()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (4, 9):
        x = torch.randn(2, length, 6)
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_save_load_copy_pickle(kind):
    layer = build(kind)
    x = torch.randn(1, 3, 6, dtype=torch.float64)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = build(kind, seed=1)
    other.load_state_dict(torch.load(buffer))
    for twin in (other, copy.deepcopy(layer)):
        assert torch.equal(twin(x)[0], layer(x)[0])


@pytest.mark.parametrize("kind", LAYERS)
def test_devices_and_dtypes(kind):
    layer = LAYERS[kind](device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    assert layer.initial_state(2).device.type == "meta"
    assert layer.initial_state(2).dtype == torch.float32


def test_default_sizes_keep_the_state_near_dim():
    assert BDLRU(64, block_size=4).num_blocks == 16
    assert HLRU(64, order=3).num_channels == 21
    assert BDLRU(2, block_size=8).num_blocks == 1


def test_parameter_counts_are_the_papers():
    count = lambda layer: sum(p.numel() for p in layer.parameters())  # noqa: E731
    for d, N, m in ((128, 64, 2), (128, 26, 5), (7, 3, 1)):
        assert count(BDLRU(d, block_size=m, num_blocks=N)) == N * m * ((d + 1) * (m + 1) + 2 * d)
        assert count(HLRU(d, order=m, num_channels=N)) == N * (m + 1) * (2 * d + 1)
        assert count(BDLRU(d, block_size=m, num_blocks=N, selective=False)) == 2 * d * N * m + N * m * (m + 1)
        start = {"learned_initial_state": True}
        assert count(HLRU(d, order=m, num_channels=N, **start)) == N * (m + 1) * (2 * d + 1) + N * m


def test_order_one_is_block_size_one():
    block, order = build("bdlru-diagonal"), HLRU(6, order=1, num_channels=4).double()
    order.load_state_dict(block.state_dict())
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(order(x), block(x))


def test_each_bias_reaches_its_own_gates_alone():
    for name, (transitions, inputs) in {"gate_bias": (0, -2), "transition_bias": (-2, 0)}.items():
        block = BDLRU(6, block_size=3, num_blocks=4, **{name: -2.0})
        order = HLRU(6, order=3, num_channels=4, **{name: -2.0})
        for bias in (
            block.gates.bias.reshape(4, 4, 3),
            order.gates.bias.reshape(4, 4),
        ):  # column, block[, row]
            assert (bias[3] == inputs).all()
            assert (bias[:3] == transitions).all()


def test_registry_builds_every_mixer():
    for name, size in (("bdlru", {"block_size": 2}), ("hlru", {"order": 2})):
        layer = build_mixer(name, 8, **size)
        assert isinstance(layer, MIXERS[name])
        y, state = layer(torch.randn(2, 3, 8))
        assert y.shape == (2, 3, 8)
        assert state.shape == layer.initial_state(2).shape
