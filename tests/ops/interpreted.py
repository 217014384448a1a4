"""The portable kernels against the definition in float64. Run by `test_triton_interpreter.py` (TRITON_INTERPRET=1).

A step of a program takes milliseconds here: few steps, few blocks. Every output is filled with NaN before.
"""

from __future__ import annotations

import pytest
import torch

import tests.ops.interpreter  # noqa: F401 - changes it
from statemix.ops import reference
from statemix.ops.triton import dispatch
from statemix.ops.triton.chunking import inter_chunk_scan
from statemix.ops.triton.gate_norm import CODES
from statemix.ops.triton.portable.launch import PortableKernels
from statemix.ops.triton.portable.step import step
from tests.ops.cases import LAYOUTS, inputs, names, relative, restride
from tests.ops.loops import ALL, HARD, SIGNED

RECURRENCES = ("bdlru", "hlru", "affine")
OUTPUTS, GRADIENTS = 2e-6, 5e-6


def problem(recurrence, name="softmax", *, dtype=torch.float32, **sizes):
    """(gates, values, initial state, gradient of the states, gradient of the final state)."""
    gates, values, state = inputs(recurrence, dtype=dtype, **sizes)
    if name == "none" and recurrence != "affine":
        gates = gates / 4
    generator = torch.Generator().manual_seed(1)
    grad_states = torch.randn(values.shape, generator=generator).to(dtype)
    return gates, values, state, grad_states, torch.randn(state.shape, generator=generator)


def kernels_of(recurrence, name):
    return PortableKernels(recurrence, CODES[name])


def poisoned(tensor):
    return torch.full_like(tensor, float("nan"))


def forward(recurrence, name, gates, values, state, bounds=None, chunk=None):
    states, final, starts, kernels = poisoned(values), poisoned(state), state, kernels_of(recurrence, name)
    if chunk:
        starts, carried = inter_chunk_scan(*kernels.chunk_summary(gates, values, chunk), state, reverse=False)
        assert relative(carried, reference_forward(recurrence, name, gates, values, state)[1]) < OUTPUTS
    kernels.scan("forward", (gates, values, starts), (states, final), bounds, chunk)
    return states, final


def backward(
    recurrence, name, gates, values, state, states, grad_states, grad_final, bounds=None, chunk=None
):
    outputs = poisoned(gates), poisoned(values), poisoned(state)
    ends, kernels = grad_final, kernels_of(recurrence, name)
    if chunk:
        summary = kernels.chunk_summary(gates, grad_states, chunk, reverse=True)
        ends, carried = inter_chunk_scan(*summary, grad_final, reverse=True)
    kernels.scan("backward", (gates, values, states, state, grad_states, ends), outputs, bounds, chunk)
    if chunk:
        assert relative(carried, outputs[2]) < GRADIENTS
    return outputs


def reference_forward(recurrence, name, gates, values, state, bounds=None):
    wide = (x.double() for x in (gates, values, state))
    return reference.forward(recurrence, *wide, bounds, name)


def reference_backward(recurrence, name, gates, values, state, states, grads, grad_final, bounds=None):
    gates, values, state, states, grads, grad_final = (
        x.double() for x in (gates, values, state, states, grads, grad_final)
    )
    return reference.backward(recurrence, gates, values, states, state, bounds, grads, grad_final, name)


def compute(recurrence, name, tensors, states):
    """All five results; backward takes the states that are given."""
    *given, grad_states, grad_final = tensors
    got = forward(recurrence, name, *given)
    return *got, *backward(recurrence, name, *given, states, grad_states, grad_final)


def check(recurrence, name, tensors, bounds=None, chunk=None, outputs=OUTPUTS, gradients=GRADIENTS):
    """Forward and backward against the definition; returns all five results."""
    *given, grad_states, grad_final = tensors
    got = forward(recurrence, name, *given, bounds, chunk)
    want = reference_forward(recurrence, name, *given, bounds)
    for have, exact in zip(got, want, strict=True):
        assert relative(have, exact) <= outputs
    states = want[0].to(got[0].dtype)
    rest = (*given, states, grad_states, grad_final, bounds)
    grads = backward(recurrence, name, *rest, chunk)
    for have, exact in zip(grads, reference_backward(recurrence, name, *rest), strict=True):
        assert relative(have, exact) <= gradients
    return *got, *grads


@pytest.mark.parametrize(
    ("recurrence", "name"),
    [
        *(("bdlru", n) for n in CODES),
        *(("hlru", n) for n in ("softmax", "silu", "hard:softmax", "hard:silu")),
        ("affine", "none"),
    ],
)
def test_definition(recurrence, name):
    """All recurrences have their weights and slopes from the same functions."""
    check(recurrence, name, problem(recurrence, name, B=1, T=4, N=2, m=3))


@pytest.mark.parametrize(
    ("recurrence", "name"),
    [
        *(("bdlru", n) for n in (*ALL, "hard:softmax", "hard:silu")),
        *(("hlru", n) for n in ("softmax", "relu", "hard:relu")),
    ],
)
def test_definition_when_m_is_large(recurrence, name):
    check(recurrence, name, problem(recurrence, name, B=1, T=2, N=2, m=17))


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_definition_over_several_tiles_of_time(recurrence):
    """T = 17 is not a multiple of any tile."""
    check(recurrence, names(recurrence)[0], problem(recurrence, B=1, T=17, N=2, m=1))
    check(recurrence, names(recurrence)[0], problem(recurrence, B=1, T=9, N=2, m=4))


@pytest.mark.parametrize(
    ("m", "name"),
    [*((m, "softmax") for m in (1, 2, 4, 5, 8, 16, 33)), *((m, "hard:softmax") for m in (1, 5, 8, 16))],
)
def test_every_m_of_blocks(m, name):
    check("bdlru", name, problem("bdlru", B=1, T=3, N=2, m=m))


@pytest.mark.parametrize(
    ("m", "name"), [*((m, "softmax") for m in (1, 2, 4, 5, 8, 9, 33)), *((m, "hard:tanh") for m in (1, 8))]
)
def test_every_m_of_orders(m, name):
    check("hlru", name, problem("hlru", B=1, T=4, N=2, m=m))


@pytest.mark.parametrize("m", [1, 2, 33])
def test_every_m_of_affine(m):
    check("affine", "none", problem("affine", B=1, T=3, N=2, m=m))


@pytest.mark.parametrize(
    ("recurrence", "name"),
    [*((r, names(r)[0]) for r in RECURRENCES), ("bdlru", "hard:silu"), ("hlru", "hard:softmax")],
)
def test_every_m_has_its_step(recurrence, name):
    """Step by step is the scan, and the states are the window."""
    for m in (1, 3, 33):
        gates, values, state, *_ = problem(recurrence, B=2, T=3, N=2, m=m)
        states, final = reference_forward(recurrence, name, gates, values, state)
        for t in range(3):
            now, new = slice(t, t + 1), poisoned(state)
            token = poisoned(values[:, now])
            dispatch.forward(recurrence, name, (gates[:, now], values[:, now], state), (token, new), None)
            assert relative(token, states[:, now]) < OUTPUTS
            state = new
        assert relative(state, final) < OUTPUTS


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_every_m_but_not_more(recurrence):
    gates, values, state, *_ = (torch.empty_like(x) for x in problem(recurrence, B=1, T=1, N=1, m=1025))
    with pytest.raises(ValueError, match="m: got 1025"):
        PortableKernels(recurrence, 0).scan("forward", (gates, values, state), (values, state))


@pytest.mark.parametrize(("recurrence", "m", "name"), [
    *((r, m, "softmax") for r, m in (("bdlru", 2), ("hlru", 2), ("bdlru", 17), ("hlru", 9))),
    ("bdlru", 2, "hard:linear"), ("hlru", 9, "hard:softmax"),
])  # fmt: skip
def test_memory_layouts(recurrence, m, name):
    """Any strides, in and out: every result is bit for bit that of contiguous tensors."""
    tensors = problem(recurrence, B=2, T=2, N=2, m=m)
    states = reference_forward(recurrence, name, *tensors[:3])[0].float()
    want = compute(recurrence, name, tensors, states)
    for layout in LAYOUTS[1:]:
        got = compute(recurrence, name, [restride(x, layout) for x in tensors], restride(states, layout))
        for have, exact in zip(got, want, strict=True):
            assert torch.equal(have, exact), layout


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_memory_of_expanded_inputs(recurrence):
    """Stride 0: one row of gates for all steps, one value for all blocks, one gradient for everything.

    The outputs are every second element of larger ones.
    """
    gates, values, state, grads, grad_final = problem(recurrence, B=2, T=5, N=3, m=2)
    gates, values = gates[:, :1].expand_as(gates), values[:, :, :1].expand_as(values)
    grads, state = grads.flatten()[0].expand_as(grads), state[:1].expand_as(state)
    outputs = [restride(poisoned(x), "sliced") for x in (gates, values, grad_final)]
    states, final = (restride(poisoned(x), "sliced") for x in (values, grad_final))
    name = names(recurrence)[0]
    kernels = kernels_of(recurrence, name)
    kernels.scan("forward", (gates, values, state), (states, final))
    want, want_final = reference_forward(recurrence, name, gates, values, state)
    assert max(relative(states, want), relative(final, want_final)) < OUTPUTS
    kernels.scan("backward", (gates, values, states, state, grads, grad_final), tuple(outputs))
    exact = reference_backward(recurrence, name, gates, values, state, states, grads, grad_final)
    assert max(relative(a, b) for a, b in zip(outputs, exact, strict=True)) < GRADIENTS


@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_memory_layouts_of_a_step(recurrence):
    gates, values, state, *_ = problem(recurrence, B=2, T=1, N=3, m=3)
    want, _ = reference_forward(recurrence, "softmax", gates, values, state)
    for layout in LAYOUTS:
        token, new = poisoned(restride(values, layout)), poisoned(state.transpose(0, 2)).transpose(0, 2)
        given = (restride(gates, layout), restride(values, layout), state)
        step(recurrence, CODES["softmax"], given, (token, new))
        assert relative(token, want) < OUTPUTS
        assert torch.equal(new if recurrence == "bdlru" else new[..., 0], token[:, 0])


@pytest.mark.parametrize(("dtype", "outputs", "gradients"), [
    # The interpreter cuts float32 to bfloat16 instead of rounding, which a GPU does not: twice the error.
    (torch.bfloat16, 7e-3, 1e-2),
    (torch.float16, 5e-4, 1e-3),
], ids=str)  # fmt: skip
@pytest.mark.parametrize(
    ("recurrence", "name"), [*((r, names(r)[0]) for r in RECURRENCES), ("bdlru", "hard:softmax")]
)
def test_memory_of_half_precision(recurrence, name, dtype, outputs, gradients):
    for m in (3, 17):
        tensors = problem(recurrence, B=1, T=4, N=2, m=m, dtype=dtype)
        states, final, *grads = check(recurrence, name, tensors, outputs=outputs, gradients=gradients)
        assert [x.dtype for x in (states, final, *grads)] == [
            dtype,
            torch.float32,
            dtype,
            dtype,
            torch.float32,
        ]
        assert relative(final, reference_forward(recurrence, name, *tensors[:3])[1]) < OUTPUTS


@pytest.mark.parametrize(("recurrence", "m", "name"), [
    *((r, m, "softmax") for r, m in (("bdlru", 3), ("hlru", 3), ("bdlru", 17), ("hlru", 9))),
    ("bdlru", 3, "hard:softmax"), ("hlru", 9, "hard:sigmoid"),
])  # fmt: skip
def test_laws_packed_is_separate(recurrence, m, name):
    """To the bit; empty sequences keep their state."""
    bounds = [0, 0, 3, 3, 4, 6, 6]
    tensors = problem(recurrence, B=1, T=6, N=2, m=m, sequences=6)
    packed = check(
        recurrence, name, tensors, torch.tensor(bounds, dtype=torch.int32 if m == 3 else torch.int64)
    )
    gates, values, state, grads, grad_final = tensors
    want, _ = reference_forward(recurrence, name, *tensors[:3], torch.tensor(bounds))
    for s, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if s in (1, 3):
            continue  # there is another empty one, and another of one step
        time, one = slice(start, end), slice(s, s + 1)
        states, final = forward(recurrence, name, gates[:, time], values[:, time], state[one])
        arguments = (gates[:, time], values[:, time], state[one], want[:, time].float(), grads[:, time])
        alone = (states, final, *backward(recurrence, name, *arguments, grad_final[one]))
        for together, apart in zip(packed, alone, strict=True):
            assert torch.equal(together[:, time] if together.shape[1] == 6 else together[one], apart)
    assert torch.equal(packed[1][0], state[0])
    assert torch.equal(packed[4][0], grad_final[0])


@pytest.mark.parametrize(("recurrence", "m", "T", "chunk", "name"), [
    *((r, m, T, chunk, names(r)[0]) for r, m, T, chunk in (
        ("bdlru", 1, 5, 3), ("bdlru", 5, 3, 2), ("bdlru", 2, 3, 8), ("bdlru", 2, 0, 4),
        ("hlru", 1, 5, 3), ("hlru", 5, 3, 2), ("hlru", 9, 3, 2), ("hlru", 2, 0, 4), ("affine", 2, 3, 2),
    )),
    ("bdlru", 1, 5, 3, "hard:tanh"), ("bdlru", 5, 5, 3, "hard:softmax"),
    ("hlru", 2, 5, 3, "hard:linear"), ("hlru", 9, 3, 2, "hard:softmax"),
])  # fmt: skip
def test_laws_chunks_are_the_whole(recurrence, m, T, chunk, name):
    check(recurrence, name, problem(recurrence, B=2 if m == 1 else 1, T=T, N=2, m=m), chunk=chunk)


@pytest.mark.parametrize(
    ("recurrence", "m", "name"),
    [("bdlru", 4, "hard:softmax"), ("hlru", 4, "hard:linear"), ("hlru", 9, "hard:softmax")],
)
def test_laws_of_hard_rows_that_copy(recurrence, m, name):
    """Where no row takes its value, a chunk is a map of states with one entry of size 1 a row, and nothing is lost."""
    gates, values, state, *_ = problem(recurrence, B=1, T=6, N=2, m=m)
    gates[..., -1] = -9.0 if name == "hard:softmax" else 0.0
    matrices, offsets = kernels_of(recurrence, name).chunk_summary(gates, values, 3)
    assert torch.equal(matrices.abs().sum(-1), torch.ones(matrices.shape[:-1]))
    assert set(matrices.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert not offsets.any()
    states, _ = forward(recurrence, name, gates, values, state)
    kept = state.abs().view(1, 1, 2, 1, m)
    assert (states.abs().view(1, 6, 2, -1, 1) == kept).any(-1).all()


def test_laws_chunks_of_large_blocks_are_refused():
    for recurrence, m in (("bdlru", 17), ("affine", 17), ("hlru", 33)):
        gates, values, *_ = problem(recurrence, B=1, T=2, N=1, m=m)
        with pytest.raises(ValueError, match=f"m: got {m}"):
            PortableKernels(recurrence, 0).chunk_summary(gates, values, 1)


@pytest.mark.parametrize(("recurrence", "m"), [("bdlru", 5), ("hlru", 3), ("hlru", 9)])
def test_laws_neighbours_do_not_matter(recurrence, m):
    """More blocks than one program takes; a sequence and a block alone give the same bits."""
    N = 8 if recurrence == "bdlru" else 34
    tensors = problem(recurrence, B=2, T=3, N=N, m=m)
    together = check(recurrence, "softmax", tensors)
    states = reference_forward(recurrence, "softmax", *tensors[:3])[0].float()
    row, blocks = slice(1, 2), slice(N - 2, N - 1)
    gates, values, grads, states = (x[row, :, blocks] for x in (tensors[0], tensors[1], tensors[3], states))
    state, grad_final = tensors[2][row, blocks], tensors[4][row, blocks]
    alone = (
        *forward(recurrence, "softmax", gates, values, state),
        *backward(recurrence, "softmax", gates, values, state, states, grads, grad_final),
    )
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[row, :, blocks] if many.shape[1] == 3 else many[row, blocks], one)


@pytest.mark.parametrize("size", [{"B": 0}, {"N": 0}, {"T": 0}], ids=str)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_laws_of_empty_tensors(recurrence, size):
    for m in (2, 17):
        tensors = problem(recurrence, **{"B": 2, "T": 2, "N": 2, "m": m, **size})
        _, final, *_, d_initial = check(recurrence, names(recurrence)[0], tensors)
        if "T" in size:
            assert torch.equal(final, tensors[2])
            assert torch.equal(d_initial, tensors[4])


@pytest.mark.parametrize(("recurrence", "m", "name"), [
    *((r, m, name) for r, m in (("bdlru", 2), ("hlru", 2), ("hlru", 9)) for name in SIGNED),
    ("bdlru", 2, "hard:silu"), ("hlru", 9, "hard:tanh"),
])  # fmt: skip
def test_laws_of_rows_of_zeros(recurrence, m, name):
    gates, values, state, grads, grad_final = problem(recurrence, B=1, T=3, N=2, m=m)
    gates[:, 1] = 0
    results = check(recurrence, name, (gates, values, state, grads, grad_final))
    assert (results[0][:, 1] == 0).all()
    assert (results[2][:, 1] == 0).all()


@pytest.mark.parametrize(("recurrence", "m", "name"), [
    *((r, 2, name) for r in ("bdlru", "hlru") for name in ALL), ("bdlru", 2, "hard:softmax"),
    *((r, m, name) for r, m in (("bdlru", 17), ("hlru", 9)) for name in ("softmax", "silu")),
    ("hlru", 9, "hard:sigmoid"),
])  # fmt: skip
def test_laws_of_nan(recurrence, m, name):
    """A NaN among the gates reaches its own block from its step on, and no other; so do gradients of all before."""
    gates, values, state, grads, grad_final = problem(recurrence, B=1, T=4, N=3, m=m)
    gates[0, 2, 1].view(-1)[0] = float("nan")
    states, final = forward(recurrence, name, gates, values, state)
    bad = states.isnan().view(1, 4, 3, -1)
    assert bad[:, 2:, 1].any(-1).all()
    assert final[:, 1].isnan().any()
    assert not bad[:, :2].any()
    assert not bad[:, :, ::2].any()
    d_gates, _, d_initial = backward(recurrence, name, gates, values, state, states, grads, grad_final)
    assert d_gates[0, :, 1].isnan().any()
    assert d_initial[0, 1].isnan().any()
    assert torch.isfinite(d_gates[:, :, ::2]).all()


@pytest.mark.parametrize(("recurrence", "m"), [("bdlru", 2), ("hlru", 9)])
def test_laws_of_large_gates(recurrence, m):
    gates, values, state, grads, grad_final = problem(recurrence, B=1, T=2, N=2, m=m)
    for name in ("softmax", "sigmoid", "tanh", "silu", "hard:softmax", "hard:silu"):
        arguments = (recurrence, name, gates * 1e3, values, state)
        states, _ = forward(*arguments)
        assert torch.isfinite(states).all()
        assert all(torch.isfinite(x).all() for x in backward(*arguments, states, grads, grad_final))


INF, NAN = float("inf"), float("nan")
TIED = [
    [1.0, 1.0, 0.0],
    [-2.0, 0.5, 2.0],
    [-0.5, -0.5, -0.5],
    [0.0, -0.0, 0.0],
    [40.0, 39.0, 41.0],
    [-9.0, -8.0, -7.0],
]
"""Rows with equal weights, and with some that saturate."""

ENDLESS = [[0.5, s, -1.0] for s in (INF, -INF, NAN)] + [[-INF, -INF, -INF], [-INF, 2.0, -INF]]


@pytest.mark.parametrize(("recurrence", "m", "name"), [
    *(("bdlru", 2, name) for name in HARD),
    ("hlru", 9, "hard:softmax"), ("hlru", 9, "hard:silu"), ("bdlru", 17, "hard:linear"),
])  # fmt: skip
def test_laws_of_hard_rows_at_the_edge(recurrence, m, name):
    """Of equal weights the first counts, gates that saturate are told apart, and NaN stands where the loop has it."""
    for rows in (TIED, ENDLESS[:3] if name == "hard:linear" else ENDLESS):
        gates, values, state, grads, grad_final = problem(recurrence, B=1, T=1, N=len(rows), m=m)
        gates[:] = torch.cat([torch.tensor(rows), gates.flatten(0, -2)[: len(rows), : m - 2]], -1).view(
            1, 1, len(rows), *(1,) * (gates.dim() - 4), m + 1
        )
        given = (recurrence, name, gates, values, state)
        got, want = forward(*given), reference.forward(*given[:1], *given[2:], None, name)
        back = (*given, got[0], grads, grad_final)
        got = *got, *backward(*back)
        want = (
            *want,
            *reference.backward(recurrence, gates, values, got[0], state, None, grads, grad_final, name),
        )
        for have, true in zip(got, want, strict=True):
            torch.testing.assert_close(have, true, rtol=2e-5, atol=2e-5, equal_nan=True)
