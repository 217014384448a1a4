"""What must hold for any shape, layout, packing and cut: drawn by hypothesis, on both backends."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops.cases import BACKENDS, LAYOUTS, RECURRENCES, inputs, names, relative, restride, run, step
from tests.ops.loops import HARD, loop


@st.composite
def problems(draw, recurrences=RECURRENCES, **fixed):
    """A recurrence, a normalisation it takes, a backend and inputs."""
    recurrence = draw(st.sampled_from(recurrences))
    sizes = {
        "B": draw(st.integers(1, 3)),
        "T": draw(st.integers(1, 12)),
        "N": draw(st.integers(1, 5)),
        "m": draw(st.integers(1, 5)),
        "seed": draw(st.integers(0, 2**31)),
    }
    tensors = inputs(recurrence, **{**sizes, **fixed})
    allowed = names(recurrence) if recurrence == "affine" else (*names(recurrence), *HARD)
    return recurrence, draw(st.sampled_from(allowed)), draw(st.sampled_from(BACKENDS)), tensors


@given(problems(), st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS))
def test_any_layout_is_the_plain_loop(problem, gate_layout, value_layout):
    recurrence, name, backend, (gates, values, state) = problem
    strided = restride(gates, gate_layout), restride(values, value_layout), state.transpose(0, 1).contiguous()
    states, final = run(recurrence, *strided[:2], strided[2].transpose(0, 1), name, backend=backend)
    want_states, want_final = loop(recurrence, gates, values, state, name)
    assert relative(states, want_states) < 1e-12
    assert relative(final, want_final) < 1e-12


@given(problems(), st.data())
def test_any_cut_with_the_state_carried_is_the_whole(problem, data):
    recurrence, name, backend, (gates, values, state) = problem
    length = values.shape[1]
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4)))
    whole = run(recurrence, gates, values, state, name, backend=backend)
    parts, carried = [], state
    for start, end in zip([0, *cuts], [*cuts, length], strict=True):
        part, carried = run(
            recurrence, gates[:, start:end], values[:, start:end], carried, name, backend=backend
        )
        parts.append(part)
    assert torch.equal(torch.cat(parts, dim=1), whole[0])
    assert torch.equal(carried, whole[1])


@given(problems(recurrences=("bdlru", "hlru")))
def test_step_by_step_is_the_scan(problem):
    recurrence, name, backend, (gates, values, state) = problem
    states, final = run(recurrence, gates, values, state, name, backend=backend)
    for t in range(values.shape[1]):
        state = step(recurrence, gates[:, t], values[:, t], state, name, backend=backend)
        assert torch.equal(state if recurrence == "bdlru" else state[..., 0], states[:, t])
    assert torch.equal(state, final)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), problems(B=1, T=1), st.integers(0, 2**31))
def test_packed_is_separate(lengths, problem, seed):
    recurrence, name, backend, _ = problem
    total = sum(lengths)
    gates, values, state = inputs(recurrence, B=1, T=total, N=2, m=3, sequences=len(lengths), seed=seed)
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    states, final = run(recurrence, gates, values, state, name, cu_seqlens=bounds, backend=backend)
    for s, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        part, last = run(
            recurrence, gates[:, start:end], values[:, start:end], state[s : s + 1], name, backend=backend
        )
        assert torch.equal(states[:, start:end], part)
        assert torch.equal(final[s : s + 1], last)


@given(problems(B=3), st.data())
def test_neighbours_do_not_matter(problem, data):
    """A sequence's bits, forward and backward, are its own: with the rest of the batch or alone."""
    recurrence, name, backend, tensors = problem
    row = data.draw(st.integers(0, 2))

    def gradients(tensors):
        leaves = [x.detach().clone().requires_grad_() for x in tensors]
        states, final = run(recurrence, *leaves, name, backend=backend)
        (states.sin().sum() + final.cos().sum()).backward()
        return states, final, *(leaf.grad for leaf in leaves)

    together, alone = gradients(tensors), gradients([x[row : row + 1] for x in tensors])
    for many, one in zip(together, alone, strict=True):
        assert torch.equal(many[row : row + 1], one)


@given(problems())
def test_twice_the_same_bits(problem):
    recurrence, name, backend, tensors = problem
    first, second = (run(recurrence, *tensors, name, backend=backend) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
