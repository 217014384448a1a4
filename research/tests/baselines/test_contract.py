"""What every baseline keeps as a mixer."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from research.tests.baselines.small import DIM, PACKED, SIZES, B, T, inputs, small
from statemix.models import LanguageModel
from statemix.nn import MIXERS, build_mixer


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_every_baseline_is_tested():
    assert set(SIZES) == set(MIXERS) - {"bdlru", "hlru"}


@pytest.mark.parametrize("name", SIZES)
def test_shapes_dtypes_and_the_past_alone(name):
    layer, x = small(name), inputs()
    y, state = layer(x)
    assert y.shape == x.shape and y.dtype == torch.float64
    assert state.shape[0] == B and state.dtype == torch.float64
    (y[:, 6].sum()).backward()
    assert x.grad[:, 7:].abs().max() == 0
    assert x.grad[:, 6].abs().sum() > 0 and x.grad[:, 5].abs().sum() > 0


@pytest.mark.parametrize("name", SIZES)
def test_steps_equal_the_whole(name):
    layer, x = small(name), inputs()
    want, last = layer(x)
    state = layer.initial_state(B)
    for t in range(T):
        y, state = layer.step(x[:, t], state)
        close(y, want[:, t])
    close(state, last)


@pytest.mark.parametrize("cut", [0, 1, 5, T])
@pytest.mark.parametrize("name", SIZES)
def test_a_carried_state_continues(name, cut):
    layer, x = small(name), inputs()
    want, last = layer(x)
    first, state = layer(x[:, :cut])
    second, state = layer(x[:, cut:], state)
    close(torch.cat([first, second], 1), want)
    close(state, last)


@pytest.mark.parametrize("name", PACKED)
def test_packed_sequences_do_not_meet(name):
    layer, x = small(name), inputs(1, T, DIM)
    bounds = [0, 4, 4, T]
    y, states = layer(x, cu_seqlens=torch.tensor(bounds))
    for k, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        alone, state = layer(x[:, start:end])
        close(y[:, start:end], alone)
        close(states[k : k + 1], state)


@pytest.mark.parametrize("name", SIZES)
def test_gradients_reach_everything_and_carry_through_the_state(name):
    layer, x = small(name), inputs()
    _, state = layer(x)
    y, _ = layer(x, state)
    y.square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    x.grad = None
    _, state = layer(x)
    y, _ = layer(x.detach(), state)
    y.square().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "name", [n for n in SIZES if n != "pdssm"]
)  # its straight-through gradients are no derivatives
def test_gradients_are_derivatives(name):
    layer, x = small(name), inputs(1, 4, DIM)
    assert torch.autograd.gradcheck(lambda x: layer(x)[0], x, fast_mode=True)


@pytest.mark.parametrize("name", SIZES)
def test_default_sizes_in_a_model_in_half_precision(name):
    torch.manual_seed(0)
    model = LanguageModel(7, 128, lambda dim: build_mixer(name, dim), depth=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, states = model(torch.arange(14).view(2, 7) % 7)
    logits.float().logsumexp(-1).sum().backward()
    assert logits.isfinite().all()
    assert states[0].dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_nan_in_is_nan_out(name):
    x = inputs().detach()
    x[0, 3] = torch.nan
    y, _ = small(name)(x)
    assert y[0, 3].isnan().any() and y[1:].isfinite().all()


BAD = {
    "x": (lambda layer: layer(torch.ones(2, 3, 5).double()), ValueError, "x: got shape"),
    "x dtype": (lambda layer: layer(torch.ones(2, 3, DIM)), TypeError, "x: got dtype"),
    "state": (lambda layer: layer(inputs(), torch.ones(B + 1, 3).double()), ValueError, "state: got shape"),
    "state kind": (lambda layer: layer(inputs(), 3), TypeError, "state: got int"),
    "batch_size": (lambda layer: layer.initial_state(-1), ValueError, "batch_size"),
    "packed": (
        lambda layer: layer(inputs(), cu_seqlens=torch.tensor([0, 2, T])),
        ValueError,
        "cu_seqlens: got",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", SIZES)
def test_bad_inputs(name, what):
    call, kind, words = BAD[what]
    with pytest.raises(kind, match=words):
        call(small(name))


@pytest.mark.parametrize("name", ["slstm", "attention"])
def test_heads_of_their_own_size(name):
    """Inside the layer there are 18 channels, outside 8."""
    layer, x = small(name, heads=3, head_dim=6), inputs()
    y, last = layer(x)
    assert y.shape == x.shape
    first, between = layer(x[:, :4])
    second, after = layer(x[:, 4:], between)
    torch.testing.assert_close((torch.cat([first, second], 1), after), (y, last))
    y.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


ARGUMENTS = [
    ("lstm", {"hidden_size": 0}, "hidden_size: got 0"),
    ("lru", {"state_dim": 0}, "state_dim: got 0"),
    ("lru", {"radius": (0.9, 1.0)}, "radius: got"),
    ("lru", {"backend": "fast"}, "backend: got 'fast'"),
    ("mamba2", {"head_dim": 7}, "head_dim: got 7, expected a divisor of the width 16"),
    ("mamba2", {"conv_size": 0, "head_dim": 8}, "conv_size: got 0"),
    (
        "deltanet",
        {"backend": "fast"},
        "backend: got 'fast', expected one of 'auto', 'loop', 'chunks', 'kernel'",
    ),
    ("deltanet", {"factors": 2}, "mixer.factors: unknown for 'deltanet', expected one of heads, head_dim"),
    ("gated_deltanet", {"heads": 0}, "heads: got 0"),
    ("gated_deltaproduct", {"factors": 1}, "factors: got 1, expected at least 2"),
    ("rwkv7", {"head_dim": 3}, "head_dim: got 3"),
    ("mlstm", {"heads": 3}, "heads: got 3"),
    ("mlstm", {"chunk": 0}, "chunk: got 0"),
    ("slstm", {"heads": 3}, "heads: got 3"),
    ("slstm", {"head_dim": 0}, "head_dim: got 0"),
    ("slstm", {"heads": 0, "head_dim": 8}, "heads: got 0"),
    ("attention", {"position": "learned"}, "position: got 'learned', expected one of 'rotary', 'none'"),
    ("attention", {"heads": 8}, "head_dim: got 1, expected an even number"),
    ("attention", {"heads": 0, "head_dim": 8}, "heads: got 0"),
    ("pdssm", {"dictionary_size": 0}, "dictionary_size: got 0"),
]


@pytest.mark.parametrize(("name", "arguments", "words"), ARGUMENTS)
def test_bad_arguments(name, arguments, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        build_mixer(name, DIM, **arguments)


@pytest.mark.parametrize("name", SIZES)
def test_builds_without_memory(name):
    layer = build_mixer(name, DIM, **SIZES[name], device="meta")
    assert {p.device.type for p in layer.parameters()} == {"meta"}


def test_baselines_are_imported_on_first_use():
    code = (
        "import sys, statemix, statemix.models, statemix_research.cli.app; from statemix.nn import MIXERS\n"
        "names = [n for n in sys.modules if n.startswith(('statemix_research.baselines.', 'fla', 'torch._dynamo'))]\n"
        "assert not names, names\n"
        "assert {'bdlru', 'hlru', 'lstm'} <= set(MIXERS) and len(MIXERS) == 13\n"
        "[MIXERS[name] for name in MIXERS]\n"
        "assert 'fla' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
