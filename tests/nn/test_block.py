"""Blocks and stacks: their formula, carried state, packed rows, steps, what they refuse."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from statemix.nn import BDLRU, HLRU, NORMS, Block, BlockState, ShortConvolution, Stack, SwiGLU, map_state

MIXERS = {
    "bdlru": lambda dim: BDLRU(dim, block_size=3, num_blocks=4),
    "hlru": lambda dim: HLRU(dim, order=3, num_channels=4),
    "start": lambda dim: BDLRU(dim, block_size=3, num_blocks=4, hard=True, learned_initial_state=True),
}
PARTS = {
    "plain": {},
    "convolution": {"conv_size": 4},
    "gate": {"output_gate": True},
    "mlp": {"mlp": True, "mlp_width": 20},
    "all": {"conv_size": 3, "output_gate": True, "mlp": True, "norm": "layer"},
}
EVERY_MIXER = pytest.mark.parametrize("mixer", MIXERS)
PLAIN_AND_ALL = pytest.mark.parametrize("parts", [PARTS["plain"], PARTS["all"]], ids=["plain", "all"])
EVERY_PART = pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)


def build(mixer="bdlru", dim=6, **options):
    """A block in float64 whose norms do something."""
    torch.manual_seed(0)
    block = Block(dim, MIXERS[mixer](dim), **options).double()
    with torch.no_grad():
        for part in (block.mixer_norm, block.mlp_norm):
            for parameter in () if part is None else part.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return block


def inputs(block, *shape):
    """x and a state with numbers in it."""
    x = torch.randn(*shape, block.dim, dtype=torch.float64)
    return x, map_state(torch.randn_like, block.initial_state(shape[0]))


def tensors(state):
    """The tensors of a state, in order."""
    return [state] if isinstance(state, torch.Tensor) else [one for part in state for one in tensors(part)]


def convolved(u, weight, before):
    """silu of the sum over lags, as a loop; `before` [S, dim, k - 1], newest first."""
    history = torch.cat([before.flip(-1).transpose(1, 2), u], 1)  # [B, k - 1 + T, dim]
    k = weight.shape[1]
    out = [sum(weight[:, j] * history[:, k - 1 + t - j] for j in range(k)) for t in range(u.shape[1])]
    return F.silu(torch.stack(out, 1)), history.flip(1)[:, : k - 1].transpose(1, 2)


def normed(norm, x):
    """The norm's formula."""
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight


@EVERY_PART
@EVERY_MIXER
def test_the_block_is_its_formula(mixer, parts):
    block = build(mixer, **parts)
    x, state = inputs(block, 2, 7)
    have, after = block(x, state)
    u = c = normed(block.mixer_norm, x)
    mixer_state = state
    if block.convolution is not None:
        assert isinstance(after, BlockState)
        c, last = convolved(u, block.convolution.weight, state.convolution)
        mixer_state = state.mixer
        torch.testing.assert_close(after.convolution, last)
    y, mixer_after = block.mixer(c, mixer_state)
    if block.output_gate is not None:
        y = F.silu(u @ block.output_gate.weight.T) * y
    want = x + y
    if block.mlp is not None:
        want = want + block.mlp(normed(block.mlp_norm, want))
    torch.testing.assert_close(have, want)
    torch.testing.assert_close(getattr(after, "mixer", after), mixer_after)


@EVERY_PART
@EVERY_MIXER
def test_any_cut_and_every_step_is_the_whole(mixer, parts):
    block = build(mixer, **parts)
    x, start = inputs(block, 2, 9)
    for first in (start, None):
        whole, final = block(x, first)
        for cuts in ([0, 9], [1], [2, 3, 3, 8]):
            pieces, state = [], first
            for begin, end in pairwise([0, *cuts, 9]):
                piece, state = block(x[:, begin:end], state)
                pieces.append(piece)
            torch.testing.assert_close(torch.cat(pieces, 1), whole)
            torch.testing.assert_close(state, final)
        state = first
        for t in range(9):
            y, state = block.step(x[:, t], state)
            torch.testing.assert_close(y, whole[:, t])
        torch.testing.assert_close(state, final)


@pytest.mark.parametrize("lengths", [[3, 0, 1, 5], [0], [0, 0], [2], [], [1, 1, 1, 9]], ids=str)
@EVERY_PART
@EVERY_MIXER
def test_packed_is_separate(mixer, parts, lengths):
    block = build(mixer, **parts)
    bounds = [0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()]
    x = torch.randn(1, bounds[-1], 6, dtype=torch.float64)
    states = map_state(torch.randn_like, block.initial_state(len(lengths)))
    for carried in (states, None):
        y, final = block(x, carried, torch.tensor(bounds))
        assert y.shape == x.shape
        for s, (begin, end) in enumerate(pairwise(bounds)):
            own = None if carried is None else map_state(lambda part, s=s: part[s : s + 1], carried)
            part, last = block(x[:, begin:end], own)
            torch.testing.assert_close(y[:, begin:end], part)
            torch.testing.assert_close(map_state(lambda one, s=s: one[s : s + 1], final), last)


@PLAIN_AND_ALL
def test_gradients_flow_to_everything(parts):
    block = build(**parts)
    x, state = inputs(block, 2, 5)
    bounds = torch.tensor([0, 4, 4, 10])
    names = list(block.state_dict())
    state = [one.requires_grad_() for one in tensors(state)]

    def run(x, *state):
        whole = BlockState(*state) if len(state) > 1 else state[0]
        y, after = block(x, whole)
        return y, *tensors(after)

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *state))
    packed = map_state(lambda one: torch.randn(3, *one.shape[1:], dtype=one.dtype), block.initial_state(1))
    packed = [one.requires_grad_() for one in tensors(packed)]

    def run_packed(x, *state):
        y, after = block(x, BlockState(*state) if len(state) > 1 else state[0], bounds)
        return y, *tensors(after)

    assert torch.autograd.gradcheck(run_packed, (x.detach().reshape(1, 10, 6).requires_grad_(), *packed))
    y, after = block(x, BlockState(*state) if len(state) > 1 else state[0])
    sum(one.sum() for one in (y.sin(), *tensors(after))).backward()
    assert [name for name in names if block.get_parameter(name).grad is None] == []


@EVERY_PART
def test_outputs_own_their_storage(parts):
    """Changed in place, they change nothing else."""
    block = build(**parts)
    for length in (0, 1, 5):
        x, state = inputs(block, 2, length)
        kept = map_state(torch.clone, state)
        runs = [lambda: block(x, state)] + ([lambda: block.step(x[:, 0], state)] if length else [])  # noqa: B023
        for run in runs:
            outputs = tensors(run())
            for one in outputs:
                one.data.fill_(7)
            assert all((one == 7).all() for one in outputs)
            assert all(map(torch.equal, tensors(state), tensors(kept)))


def test_dropout_is_drawn_in_training_alone():
    block = build(mlp=True, dropout=0.5)
    x, _ = inputs(block, 2, 50)
    with torch.no_grad():
        plain = build(mlp=True)(x)[0]
        torch.testing.assert_close(block.eval()(x)[0], plain)
        block.train()
        assert not torch.equal(block(x)[0], block(x)[0])
        block.mlp.down.weight.zero_()
        dropped = block(x)[0] - x
        branch = block.eval()(x)[0] - x
    zero = dropped == 0
    assert 0.4 < zero.double().mean() < 0.6
    torch.testing.assert_close(dropped[~zero], 2 * branch[~zero])


@PLAIN_AND_ALL
def test_compiles_and_exports(parts):
    block = build(**parts)
    x, state = inputs(block, 2, 5)
    torch._dynamo.reset()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, state), block(x, state))
    torch.testing.assert_close(compiled(x), block(x))
    program = torch.export.export(block, (x, state), strict=False)
    torch.testing.assert_close(program.module()(x, state), block(x, state))


@EVERY_PART
def test_a_reset_under_a_seed_is_the_constructor_under_it(parts):
    block = Block(6, MIXERS["bdlru"](6), **parts)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(float("nan"))
    torch.manual_seed(7)
    block.reset_parameters()
    torch.manual_seed(7)
    fresh = Block(6, MIXERS["bdlru"](6), **parts)
    for name, parameter in fresh.state_dict().items():
        assert torch.equal(block.state_dict()[name], parameter), name


def test_parameters_are_made_where_and_as_named():
    block = Block(6, MIXERS["bdlru"](6).bfloat16(), **PARTS["all"], device="meta", dtype=torch.bfloat16)
    for name, parameter in block.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.is_meta != name.startswith("mixer."), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_half_precision_keeps_the_dtype_of_x_and_a_wide_state(dtype):
    block = build(**PARTS["all"]).to(dtype)
    x = torch.randn(2, 5, 6, dtype=dtype)
    y, state = block(x)
    assert y.dtype == dtype
    assert {one.dtype for one in tensors(state)} == {torch.float32}
    torch.testing.assert_close(y.double(), copy.deepcopy(block).double()(x.double())[0], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_convolution_in_half_precision_rounds_once(dtype):
    torch.manual_seed(0)
    convolution = ShortConvolution(16, 4, dtype=dtype)
    x = torch.randn(2, 50, 16, dtype=dtype)
    want = copy.deepcopy(convolution).double()(x.double())[0].to(dtype)
    steps, state = [], None
    for token in x.unbind(1):
        y, state = convolution.step(token, state)
        steps.append(y)
    for y in (convolution(x)[0], torch.stack(steps, 1)):
        assert (y == want).double().mean() > 0.99


def test_autocast():
    block = build(**PARTS["all"]).float()
    x = torch.randn(2, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = block(x)
        y, state = block.step(x[:, 0], state)
    torch.testing.assert_close(y, block.step(x[:, 0], block(x)[1])[0], atol=0.1, rtol=0.1)


# A stack


def stack(dim=6):
    torch.manual_seed(0)
    return Stack(
        Block(dim, MIXERS["bdlru"](dim), conv_size=3, mlp=True),
        MIXERS["hlru"](dim),
        Block(dim, MIXERS["hlru"](dim)),
    ).double()


def test_a_stack_is_its_blocks_one_after_another():
    blocks = stack()
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    states = map_state(torch.randn_like, blocks.initial_state(2))
    have, after = blocks(x, states)
    want, y = [], x
    for block, state in zip(blocks, states, strict=True):
        y, state = block(y, state)
        want.append(state)
    torch.testing.assert_close(have, y)
    torch.testing.assert_close(after, want)
    carried = states
    for t in range(7):
        one, carried = blocks.step(x[:, t], carried)
        torch.testing.assert_close(one, have[:, t])
    torch.testing.assert_close(carried, after)


def test_a_stack_is_indexed_like_a_sequential():
    blocks = stack()
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert isinstance(blocks[:2], Stack)
    assert blocks[1] is list(blocks)[1]
    y, _ = blocks[:2](x)
    torch.testing.assert_close(blocks[2:](y)[0], blocks(x)[0])
    assert [name for name, _ in Stack(nn.Identity(), nn.Identity()).named_children()] == ["0", "1"]


def test_a_stack_is_a_mixer_of_a_block():
    block = Block(6, stack().float(), conv_size=2)
    x = torch.randn(2, 5, 6)
    whole, state = block(x)
    first, middle = block(x[:, :2])
    second, last = block(x[:, 2:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, state)
    assert len(state.mixer) == 3


# What is refused

X = torch.zeros(2, 5, 6)
CASES = {
    "mixer": (lambda: Block(6, lambda x: x), TypeError, "mixer: got function, expected a module"),
    "width": (lambda: Block(6, BDLRU(8, block_size=2)), ValueError, "mixer: got one of dim = 8, expected dim = 6"),
    "norm": (lambda: Block(6, nn.Identity(), norm="batch"), ValueError, "norm: got 'batch', expected one of 'layer'"),
    "conv_size": (lambda: Block(6, nn.Identity(), conv_size=1), ValueError, "conv_size: got 1, expected at least 2"),
    "conv_size, float": (lambda: Block(6, nn.Identity(), conv_size=4.0), TypeError, "conv_size: got 4.0"),
    "dropout": (lambda: Block(6, nn.Identity(), dropout=1.0), ValueError, "dropout: got 1.0, expected a number 0 <"),
    "mlp_width": (lambda: Block(6, nn.Identity(), mlp_width=8), ValueError, "mlp_width: got 8, expected None"),
    "dropout, text": (lambda: Block(6, nn.Identity(), dropout="a"), ValueError, "dropout: got 'a', expected a number"),
    "mlp_width of 0": (lambda: Block(6, nn.Identity(), mlp=True, mlp_width=0), ValueError, "^mlp_width: got 0"),
    "width of an MLP": (lambda: SwiGLU(6, 0), ValueError, "width: got 0"),
    "x": (lambda: Block(6, MIXERS["bdlru"](6))(X[0]), ValueError, r"x: got shape \[5, 6\], expected \[B, T, dim\]"),
    "x of a step": (lambda: Block(6, MIXERS["bdlru"](6)).step(X), ValueError, r"x: got shape .* \[B, dim\]"),
    "state": (
        lambda: Block(6, MIXERS["bdlru"](6), conv_size=2)(X, torch.zeros(2, 4, 3)),
        TypeError,
        r"state: got Tensor, expected BlockState\(mixer, convolution\)",
    ),
    "state of a convolution": (
        lambda: ShortConvolution(6, 3)(X, torch.zeros(2, 6, 3)),
        ValueError,
        r"state: got shape \[2, 6, 3\], expected \[S, dim, conv_size - 1\] = \[2, 6, 2\]",
    ),
    "bounds": (
        lambda: ShortConvolution(6, 3)(X, cu_seqlens=torch.tensor([0, 5])),
        ValueError,
        "cu_seqlens: got a batch of B = 2",
    ),
    "states": (lambda: Stack(MIXERS["bdlru"](6))(X, []), ValueError, "states: got 0 of them, expected a list of 1"),
    "no state": (lambda: map_state(torch.clone, 3), TypeError, "state: got int, expected a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    function, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        function()


def test_norms_by_name():
    assert {name: type(Block(6, nn.Identity(), norm=name).mixer_norm) for name in NORMS} == NORMS
