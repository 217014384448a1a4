"""Masks: every row's sequence as if it were alone, whatever padding holds and whichever way is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from statemix.models import LanguageModel
from statemix.nn import Block, Stack, map_state, padding
from tests.nn.test_block import MIXERS, PARTS, PLAIN_AND_ALL, build, tensors

T = 9
RUNS = {
    "left": [(3, T), (0, T), (T - 1, T), (5, T)],
    "right": [(0, 4), (0, T), (0, 1), (0, 7)],
    "both": [(2, 5), (0, T), (1, 2), (4, T)],
    "empty": [(0, 0), (3, T), (0, 0), (0, 2)],
    "nothing": [(0, 0)] * 4,
    "full": [(0, T)] * 4,
}
EVERY_RUN = pytest.mark.parametrize("runs", RUNS.values(), ids=RUNS)


def mask_of(runs):
    steps = torch.arange(T)
    return torch.stack([(steps >= start) & (steps < stop) for start, stop in runs])


def spoiled(mask, dim=6):
    """x with NaN at padding, which must reach nothing."""
    x = torch.randn(*mask.shape, dim, dtype=torch.float64)
    return x.masked_fill(~mask.unsqueeze(-1), float("nan"))


def row(state, s):
    return None if state is None else map_state(lambda part: part[s : s + 1], state)


def alone(run, x, state, runs):
    """The definition: what `run` gives for each row's sequence alone, zero at padding."""
    y, states = None, []
    for s, (start, stop) in enumerate(runs):
        part, last = run(x[s : s + 1, start:stop], row(state, s))
        y = part.new_zeros(x.shape[0], T, part.shape[-1]) if y is None else y
        y[s, start:stop] = part[0]
        states.append(last)
    return y, map_state(lambda *parts: torch.cat(parts), *states)


def assert_equal(have, want):
    assert torch.equal(have[0], want[0])
    for a, b in zip(tensors(have[1]), tensors(want[1]), strict=True):
        assert torch.equal(a, b)


@EVERY_RUN
@PLAIN_AND_ALL
@pytest.mark.parametrize("mixer", MIXERS)
@torch.no_grad()
def test_bit_for_bit_as_alone_on_the_cpu(mixer, parts, runs):
    block, mask = build(mixer, **parts), mask_of(runs)
    block, x = block.float(), spoiled(mask).float()
    for state in (None, map_state(torch.randn_like, block.initial_state(4))):
        assert_equal(block(x, state, mask=mask), alone(block, x, state, runs))


WAYS = {
    "left": lambda run, x, state, mask: padding._run_left(run, x, mask),
    "moved": lambda run, x, state, mask: padding._run_moved(run, x, mask),
    "packed": lambda run, x, state, mask: padding._run_packed(run, x, state, mask, int(mask.sum())),
    "packed with padding": lambda run, x, state, mask: padding._run_packed(run, x, state, mask, None),
}
"""Where nothing runs alone."""


@EVERY_RUN
@PLAIN_AND_ALL
@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_as_alone(way, mixer, parts, runs):
    """Outputs, states and all gradients; NaN at padding reaches none of them."""
    if way == "left" and not all(stop in (start, T) for start, stop in runs):
        pytest.skip("not padded on the left")
    if way in ("left", "moved") and mixer == "start":
        pytest.skip("zeros change its first state")
    block, mask = build(mixer, **parts), mask_of(runs)
    x, given = spoiled(mask), map_state(torch.randn_like, block.initial_state(4))
    for state in (None,) if way in ("left", "moved") else (None, given):
        found = []
        for run in (lambda *a: WAYS[way](block.forward, *a, mask), lambda *a: alone(block, *a, runs)):
            block.zero_grad()
            inputs = [x.clone().requires_grad_(), *([] if state is None else tensors(state))]
            for one in inputs[1:]:
                one.grad = None
                one.requires_grad_()
            y, after = run(inputs[0], state)
            for one in tensors(after):  # memory of its own, and no more of it
                assert one.untyped_storage().nbytes() == one.numel() * one.element_size()
            sum(one.sin().sum() for one in (y, *tensors(after))).backward()
            grads = {
                name: torch.zeros_like(p) if p.grad is None else p.grad
                for name, p in block.named_parameters()
            }
            found.append((y, after, [one.grad for one in inputs], grads))
        have, want = found
        for a, b in zip(have, want, strict=True):
            torch.testing.assert_close(a, b)


def no_reading(recorded):
    """A backend that keeps the graph, which must not look into a tensor."""

    def backend(graph, inputs):
        recorded.append([node for node in graph.graph.nodes if node.op.startswith("call")])
        return graph

    return backend


@pytest.mark.parametrize("carried", [False, True], ids=["empty state", "carried state"])
def test_compiled(carried):
    """One graph for every mask; from an empty state nothing is packed, so that no scan reads bounds."""
    block, recorded, runs = build(**PARTS["all"]), [], RUNS["both"]
    mask = mask_of(runs)
    x = spoiled(mask)
    state = map_state(torch.randn_like, block.initial_state(4)) if carried else None
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend=no_reading(recorded))
    torch.testing.assert_close(compiled(x, state, mask=mask), alone(block, x, state, runs))
    for other in RUNS.values():
        torch.testing.assert_close(
            compiled(x.nan_to_num(), state, mask=mask_of(other)), alone(block, x.nan_to_num(), state, other)
        )
    assert len(recorded) == 1
    called = [str(node.target) for node in recorded[0]]
    assert not any(name in ("item", "tolist", "nonzero") for name in called)
    assert any("argsort" in name for name in called) == carried


def test_exported():
    """Any batch and length, with a mask, from an empty and from a carried state."""
    B, L = torch.export.Dim("B", min=1, max=64), torch.export.Dim("L", min=2, max=512)
    block = build(**PARTS["all"])

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x, mask, mixer_state, inputs):
            return self.block(x, mask=mask), self.block(x, (mixer_state, inputs), mask=mask)

    def arguments(*runs, length=T):
        mask = torch.stack([(torch.arange(length) >= a) & (torch.arange(length) < b) for a, b in runs])
        state = map_state(torch.randn_like, block.initial_state(len(runs)))
        return torch.randn(len(runs), length, 6, dtype=torch.float64), mask, *state

    first = arguments((2, T), (0, 4), (1, 5))
    dims = ({0: B, 1: L}, {0: B, 1: L}, {0: B}, {0: B})
    program = torch.export.export(Masked(), first, dynamic_shapes=dims, strict=False)
    for case in (first, arguments((1, 3), (0, 2), length=5), arguments((4, 20), length=20)):
        torch.testing.assert_close(program.module()(*case), Masked()(*case))


def test_on_the_meta_device():
    block = Block(6, MIXERS["bdlru"](6), conv_size=3, mlp=True).to("meta")
    x, mask = torch.empty(2, 5, 6, device="meta"), torch.ones(2, 5, dtype=torch.bool, device="meta")
    for state in (None, block.initial_state(2)):
        y, after = block(x, state, mask=mask)
        assert y.shape == (2, 5, 6) and y.is_meta
        assert [one.shape for one in tensors(after)] == [one.shape for one in tensors(block.initial_state(2))]


@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0)], ids=str)
def test_batches_of_nothing(shape):
    block = build(**PARTS["all"])
    x, mask = torch.randn(*shape, 6, dtype=torch.float64), torch.ones(shape, dtype=torch.bool)
    for state in (None, map_state(torch.randn_like, block.initial_state(shape[0]))):
        y, after = block(x, state, mask=mask)
        assert y.shape == (*shape, 6)
        before = block.initial_state(shape[0]) if state is None else state
        torch.testing.assert_close(after, before)
        for one, other in zip(tensors(after), tensors(before), strict=True):
            assert not one.numel() or one.data_ptr() != other.data_ptr()


# Stacks and models: the mask is read once


def count_readings(monkeypatch):
    readings, read = [], padding._real_runs

    def counted(mask):
        readings.append(mask)
        return read(mask)

    monkeypatch.setattr(padding, "_real_runs", counted)
    return readings


@EVERY_RUN
@torch.no_grad()
def test_a_stack_of_blocks_and_of_mixers(runs, monkeypatch):
    readings, mask = count_readings(monkeypatch), mask_of(runs)
    x = spoiled(mask)
    blocks = Stack(*(build(name, conv_size=2, mlp=True) for name in MIXERS), MIXERS["hlru"](6).double())
    assert not blocks.keeps_zero and blocks[:2].keeps_zero
    for stack in (blocks, blocks[:2]):
        for state in (None, map_state(torch.randn_like, stack.initial_state(4))):
            want = alone(stack, x, state, runs)
            assert_equal(stack(x, state, mask=mask), want)
            for way in ("packed", "packed with padding"):
                torch.testing.assert_close(WAYS[way](stack.forward, x, state, mask), want)
        torch.testing.assert_close(
            WAYS["moved"](blocks[:2].forward, x, None, mask), alone(blocks[:2], x, None, runs)
        )
    assert len(readings) == 4


@EVERY_RUN
@pytest.mark.parametrize("norm", ["rms", "layer"])
@torch.no_grad()
def test_a_model(norm, runs, monkeypatch):
    torch.manual_seed(0)
    readings, mask = count_readings(monkeypatch), mask_of(runs)
    model = LanguageModel(
        7, 12, [MIXERS["bdlru"], MIXERS["hlru"]], norm=norm, block={"conv_size": 3}
    ).double()
    nn.init.normal_(model.norm.bias) if norm == "layer" else None
    tokens = torch.randint(7, mask.shape).masked_fill(~mask, -100)  # what is no token is not looked up
    for states in (None, map_state(torch.randn_like, model.initial_states(4))):
        want = alone(model.hidden, tokens, states, runs)
        assert_equal(model.hidden(tokens, states, mask=mask), want)
        logits, after = model(tokens, states, mask=mask)
        torch.testing.assert_close(logits, model.head(want[0]))
        assert_equal((logits, after), (logits, want[1]))
        for way in WAYS if states is None else ("packed", "packed with padding"):
            if way != "left" or all(stop in (start, T) for start, stop in runs):
                torch.testing.assert_close(WAYS[way](model._hidden, tokens, states, mask), want)
    assert len(readings) == 4


def test_left_padding_stays_where_it_is(monkeypatch):
    """From an empty state and off the CPU nothing is moved, and no scan is given bounds."""
    block, mask = build(**PARTS["all"]), mask_of(RUNS["left"])
    taken = []
    monkeypatch.setattr(padding, "_run_alone", lambda *a: pytest.fail("not alone"))
    for name in ("_run_left", "_run_moved", "_run_packed"):
        way = getattr(padding, name)
        monkeypatch.setattr(padding, name, lambda *a, n=name, w=way: (taken.append(n), w(*a))[1])
    x = spoiled(mask)

    monkeypatch.setattr(padding, "_rounds_by_shape", lambda device: False)
    given = map_state(torch.randn_like, block.initial_state(4))
    right = mask_of(RUNS["right"])
    for arguments, want in (
        ((x, None, mask), ["_run_left"]),
        ((x, given, mask), ["_run_packed"]),
        ((x, None, right), ["_run_moved", "_run_left"]),
    ):
        taken.clear()
        block(arguments[0], arguments[1], mask=arguments[2])
        assert taken == want


class Growing(nn.Module):
    """A mixer of the sum of all tokens so far that keeps them all, and takes no packed rows."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 0, 6, dtype=torch.float64)

    def forward(self, x, state=None):
        state = self.initial_state(len(x)) if state is None else state
        state = torch.cat([state, x], 1)
        return state.cumsum(1)[:, state.shape[1] - x.shape[1] :], state


@torch.no_grad()
def test_any_mixer_on_the_cpu():
    """One without packed rows as well; rows of several lengths have no common state if it grows."""
    block = Block(6, Growing()).double()
    same = [(0, 4), (5, 9), (2, 6), (1, 5)]
    mask = mask_of(same)
    x = spoiled(mask)
    assert not block.keeps_zero
    assert_equal(block(x, mask=mask), alone(block, x, None, same))
    with pytest.raises(ValueError, match="mask: got rows of several lengths, expected one length"):
        block(x, mask=mask_of(RUNS["left"]))


def test_some_layers_may_begin_anew():
    """None in a list of states."""
    stack, runs = Stack(build(), build("hlru", conv_size=2)), RUNS["both"]
    mask = mask_of(runs)
    x = spoiled(mask)
    states = [None, map_state(torch.randn_like, stack[1].initial_state(4))]
    want = stack(x, [stack[0].initial_state(4), states[1]], mask=mask)
    assert_equal(stack(x, states, mask=mask), want)
    torch.testing.assert_close(WAYS["packed"](stack.forward, x, states, mask), want)


def test_values_with_a_bias_are_packed():
    block = build()
    assert block.keeps_zero
    block.mixer.values = nn.Linear(6, 12, bias=True)
    assert not block.keeps_zero
    assert not build("start").keeps_zero


def ones(*gaps, shape=(2, 5)):
    mask = torch.ones(shape, dtype=torch.bool)
    for gap in gaps:
        mask[gap] = False
    return mask


X = torch.zeros(2, 5, 6, dtype=torch.float64)
CASES = {
    "gap": (
        ones((1, 2)),
        ValueError,
        "mask: row 1 is False at position 2 between real tokens, expected one run",
    ),
    "two gaps": (ones((0, 0), (0, 2), (1, 3)), ValueError, "mask: row 0 is False at position 2 between"),
    "numbers": (
        torch.ones(2, 5, dtype=torch.int64),
        TypeError,
        "mask: got dtype torch.int64, expected torch.bool",
    ),
    "list": ([[True] * 5] * 2, TypeError, "mask: got list, expected a bool tensor"),
    "shape": (ones(shape=(2, 4)), ValueError, r"mask: got shape \[2, 4\], expected \[B, T\] = \[2, 5\]"),
    "rank": (ones(shape=(5,)), ValueError, r"mask: got shape \[5\], expected \[B, T\]"),
    "device": (ones().to("meta"), ValueError, "mask: got device meta, expected that of the input, cpu"),
}


@pytest.mark.parametrize("kind", ["block", "stack", "model"])
@pytest.mark.parametrize("case", CASES)
def test_error(case, kind):
    mask, error, message = CASES[case]
    run = {
        "block": lambda: build()(X, mask=mask),
        "stack": lambda: Stack(build())(X, mask=mask),
        "model": lambda: LanguageModel(5, 6, MIXERS["bdlru"])(X[..., 0].long(), mask=mask),
    }[kind]
    with pytest.raises(error, match=message):
        run()


@pytest.mark.parametrize("kind", ["block", "stack", "model"])
def test_bounds_and_a_mask(kind):
    bounds, mask = torch.tensor([0, 5]), ones(shape=(1, 5))
    run = {
        "block": lambda: build()(X[:1], None, bounds, mask),
        "stack": lambda: Stack(build())(X[:1], None, bounds, mask),
        "model": lambda: LanguageModel(5, 6, MIXERS["bdlru"])(X[:1, :, 0].long(), None, bounds, mask),
    }[kind]
    with pytest.raises(ValueError, match="mask: got a mask beside cu_seqlens, expected one of them"):
        run()


@pytest.mark.gpu
@EVERY_RUN
@torch.no_grad()
def test_on_a_gpu(runs):
    """As on the CPU; from an empty state a compiled block does not wait for the device."""
    block, mask = build(**PARTS["all"]).float(), mask_of(runs)
    x, given = spoiled(mask).float(), map_state(torch.randn_like, block.initial_state(4))
    want = [block(x, state, mask=mask) for state in (None, given)]
    block, there = block.cuda(), [one.cuda() for one in (x, mask)]
    moved = map_state(lambda part: part.cuda(), given)
    for state, (y, after) in zip((None, moved), want, strict=True):
        have = block(there[0], state, mask=there[1])
        torch.testing.assert_close(have[0].cpu(), y, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(map_state(torch.Tensor.cpu, have[1]), after, atol=1e-4, rtol=1e-4)
    compiled = torch.compile(block, fullgraph=True)
    compiled(there[0], mask=there[1])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        y, _ = compiled(there[0], mask=there[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(y.cpu(), want[0][0], atol=1e-4, rtol=1e-4)
