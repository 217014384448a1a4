"""The recurrences themselves: fast forms against the loops, kernels chosen or refused, and what is special to each."""

from __future__ import annotations

import functools
import sys
import types

import pytest
import torch
from statemix_research.baselines import chunked, kernels, recurrences, verify
from statemix_research.baselines.lru import LRU
from statemix_research.baselines.verify import check, draw_inputs, outputs_and_gradients, select

from research.tests.baselines.small import DIM, inputs, small
from statemix.nn import MIXERS, build_mixer

CPU = torch.device("cpu")
PLAIN = [case for case in verify.COMPARISONS if case.kernel not in kernels.OPERATIONS]
KERNELS = [case for case in verify.COMPARISONS if case.kernel in kernels.OPERATIONS]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("case", verify.COMPARISONS, ids=lambda case: case.operation)
def test_fast_forms_are_the_loops_in_float64(case):
    given = {name: x.double() for name, x in draw_inputs(case, torch.float64, CPU).items()}
    got, want = outputs_and_gradients(case.fast, given), outputs_and_gradients(case.loop, given)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@GPU
@pytest.mark.parametrize("case", KERNELS, ids=lambda case: case.operation)
def test_what_runs_for_kernels_is_the_loops(case):
    found = check(case, torch.device("cuda"))
    assert found.passed, found


@pytest.mark.parametrize("case", KERNELS, ids=lambda case: case.operation)
def test_inputs_of_kernel_checks_stay_in_range(case):
    given = {name: x.double() for name, x in draw_inputs(case, torch.float64, CPU).items()}
    outputs = case.loop(**given)
    assert all(y.isfinite().all() and 0.01 < y.std() < 100 for y in outputs)


def test_every_baseline_is_checked_kernel_or_not(monkeypatch):
    monkeypatch.setattr(kernels, "INSTALLED", False)
    found = [check(case, CPU) for case in select([])]
    assert {one.baseline for one in found} == set(MIXERS) - {"bdlru", "hlru"}
    assert all(one.passed for one in found)
    reasons = {one.baseline: one.reason for one in found if one.reason}
    assert list(reasons) == ["mamba2", "deltanet", "gated_deltanet", "gated_deltaproduct", "rwkv7"]
    assert all('pip install "flash-linear-attention>=' in reason for reason in reasons.values())
    assert all(set(one.to_dict()) >= {"output_error", "gradient_errors", "bound", "passed"} for one in found)


def wrong(function):
    """A fast operation with one gradient doubled."""

    def forward(**tensors):
        name, x = next(iter(tensors.items()))
        return function(**tensors | {name: 2 * x - x.detach()})

    return forward


def crashes(**tensors):
    raise RuntimeError("no such kernel")


def not_numbers(**tensors):
    return (torch.nan * tensors["q"],)


ATTENTION = next(case for case in PLAIN if case.baseline == "attention")


def test_a_wrong_gradient_a_crash_and_nan_do_not_pass():
    found = check(ATTENTION._replace(fast=wrong(ATTENTION.fast)), CPU)
    assert found.passed is False
    assert found.output_error < found.bound < found.gradient_errors["q"] == pytest.approx(1, rel=1e-3)
    assert found.gradient_errors["v"] < found.bound
    found = check(ATTENTION._replace(fast=crashes), CPU)
    assert found.passed is False and found.reason == "RuntimeError: no such kernel" and found.runs == ""
    assert found.to_dict()["output_error"] is None and found.to_dict()["passed"] is False
    assert check(ATTENTION._replace(fast=lambda q, k, v: not_numbers(q=q + k + v)), CPU).passed is False


def test_a_kernel_that_is_missing_or_cannot_run_is_refused(monkeypatch):
    monkeypatch.setattr(kernels, "INSTALLED", False)
    with pytest.raises(ValueError, match=r'backend: got .kernel.*pip install "flash-linear-attention>='):
        build_mixer("deltanet", DIM, backend="kernel")
    monkeypatch.setattr(kernels, "INSTALLED", True)
    layer = build_mixer("deltanet", DIM, backend="kernel", heads=1, head_dim=4)
    with pytest.raises(ValueError, match=r"backend: got 'kernel' on cpu: .* no kernels for cpu"):
        layer(torch.ones(1, 3, DIM))


@pytest.fixture
def fla(monkeypatch):
    """A package in which every kernel is the plain loop, as strict about its arguments as the real one."""
    calls = []

    def kernel(name, half_only, scale, initial_state, output_final_state, num_householder=1, **tensors):
        calls.append((name, num_householder, {key: x.dtype for key, x in tensors.items()}))
        assert scale == 1.0 and output_final_state and initial_state.dtype == torch.float32
        assert all(x.is_contiguous() for x in tensors.values())
        assert not half_only or tensors["q"].dtype == torch.bfloat16
        wide = {key: x.float() for key, x in tensors.items()}
        y, state = kernels.OPERATIONS[name].loop(**wide, initial_state=initial_state)
        return y.to(tensors["v"].dtype), state

    for name, operation in kernels.OPERATIONS.items():
        place, _, function = operation.kernel.partition(":")
        module = types.ModuleType(f"fla.ops.{place}")
        setattr(module, function, functools.partial(kernel, name, operation.half_only))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(kernels, "unusable", lambda name, device: None)
    monkeypatch.setattr(kernels, "INSTALLED", True)
    return calls


@pytest.mark.parametrize("case", KERNELS, ids=lambda case: case.operation)
def test_layers_and_checks_give_kernels_what_they_take(fla, case):
    name = case.baseline
    factors = {"factors": 4} if case.operation.endswith("4 factors") else {}
    layer = build_mixer(name, 64, **factors, backend="loop")
    fast = build_mixer(name, 64, **factors, backend="kernel")
    fast.load_state_dict(layer.state_dict())
    x = torch.randn(2, 9, 64)
    want, last = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = fast(x)
    torch.testing.assert_close(y.float(), want, rtol=0.1, atol=0.05)
    torch.testing.assert_close(state, last, rtol=0.1, atol=0.05)
    (used, householders, dtypes), *_ = fla
    assert used == case.kernel
    assert {dtypes.pop(key) for key in kernels.OPERATIONS[used].floats} <= {torch.float32}
    assert set(dtypes.values()) == {torch.bfloat16}
    if name == "gated_deltaproduct":
        assert householders == layer.factors
    found = check(case._replace(precision=verify.HALF | {"cpu": verify.HALF["cuda"]}), CPU)
    assert found.passed and found.runs == "fla kernel", found


def test_float32_where_the_kernel_takes_half_precision(fla):
    """ "auto" takes chunks; an explicit kernel is refused."""
    x = torch.randn(1, 3, 64)
    layers = {
        backend: build_mixer("deltanet", 64, backend=backend) for backend in ("auto", "chunks", "kernel")
    }
    layers["chunks"].load_state_dict(layers["auto"].state_dict())
    torch.testing.assert_close(layers["auto"](x), layers["chunks"](x))
    with pytest.raises(ValueError, match=r"backend: got 'kernel' .* takes bfloat16 and not torch.float32"):
        layers["kernel"](x)


@pytest.mark.parametrize("chunk", [1, 3, 8, 64])
def test_mlstm_does_not_depend_on_the_chunk(chunk):
    case = next(case for case in PLAIN if case.baseline == "mlstm")
    given = list(draw_inputs(case, torch.float64, CPU).values())
    tensors = {name: x[:, :13].double() for name, x in zip("qkvif", given, strict=False)}
    states = tuple(x.double() for x in given[5:])
    want, after = recurrences.mlstm(**tensors, initial_state=states)
    got, mine = chunked.mlstm(**tensors, initial_state=states, chunk=chunk)
    torch.testing.assert_close((got, *mine), (want, *after))


@pytest.mark.parametrize("name", ["mlstm", "slstm"])
def test_exponential_gates_stay_finite(name):
    layer, x = small(name), inputs()
    for size in (1e3, 1e5):
        y, state = layer(size * x.detach())
        assert y.isfinite().all() and state.isfinite().all()


@pytest.mark.parametrize("value", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_lru_forgets_whatever_its_parameters(value):
    layer = LRU(4)
    torch.nn.init.constant_(layer.log_decay, value)
    assert torch.hypot(*layer.eigenvalues().unbind(-1)).max() < 1


def test_lru_starts_in_its_ring():
    size = torch.hypot(*LRU(512, radius=(0.6, 0.9)).eigenvalues().unbind(-1))
    assert 0.599 < size.min() < 0.65 and 0.88 < size.max() < 0.901


def test_pdssm_columns_have_one_one_and_the_gradient_of_a_softmax():
    weights, dictionary = inputs(5, 3), torch.randn(3, 4, 4, dtype=torch.float64)
    chosen = recurrences.one_hot_columns(weights, dictionary)
    assert chosen.detach().sum(-2).allclose(torch.ones(5, 4, dtype=torch.float64))
    assert set(chosen.detach().round(decimals=9).unique().tolist()) == {0.0, 1.0}
    direction = torch.randn_like(chosen)
    soft = torch.einsum("bk,kij->bij", weights, dictionary).softmax(-2)
    got, want = (torch.autograd.grad(y, weights, direction)[0] for y in (chosen, soft))
    torch.testing.assert_close(got, want)


def test_delta_rule_overwrites_and_reflects():
    """β = 1 replaces what is stored under a key; β = 2 reflects it, an eigenvalue of -1."""
    k = torch.tensor([1.0, 0.0]).expand(1, 1, 1, 2)
    state = torch.tensor([[3.0], [5.0]]).expand(1, 1, 2, 1)
    v = torch.full((1, 1, 1, 1), 7.0)
    _, after = recurrences.delta_rule(k, k, v, torch.ones(1, 1, 1), initial_state=state)
    assert after.flatten().tolist() == [7.0, 5.0]
    _, after = recurrences.delta_rule(k, k, 0 * v, torch.full((1, 1, 1), 2.0), initial_state=state)
    assert after.flatten().tolist() == [-3.0, 5.0]


def test_attention_without_positions_ignores_order():
    layer, x = small("attention", position="none"), inputs(1, 6, DIM)
    last = layer(x)[0][:, -1]
    reversed_ = layer(torch.cat([x[:, :-1].flip(1), x[:, -1:]], 1))[0][:, -1]
    torch.testing.assert_close(reversed_, last)
    rotary = small("attention")
    assert not rotary(x)[0][:, -1].allclose(rotary(torch.cat([x[:, :-1].flip(1), x[:, -1:]], 1))[0][:, -1])


def test_attention_takes_no_packed_sequences():
    with pytest.raises(ValueError, match="cu_seqlens: got packed sequences"):
        small("attention")(inputs(1, 6, DIM), cu_seqlens=torch.tensor([0, 2, 6]))


def test_a_long_loop_is_not_unrolled_by_the_compiler(monkeypatch):
    """It would take minutes, so whole steps are captured in another way; where a break is allowed it runs as it is."""
    layer, x = small("slstm"), inputs(1, 4, DIM).detach()
    want = layer(x)[0]
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x)[0], want)
    monkeypatch.setattr(recurrences, "MAX_UNROLLED_STEPS", x.shape[1] - 1)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(layer, fullgraph=True, backend="eager")(x)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="eager")(x)[0], want)


@GPU
@pytest.mark.parametrize("name", ["lstm", "lru", "mlstm", "slstm", "attention", "pdssm"])
def test_the_gpu_agrees_with_the_cpu(name):
    layer, x = small(name).float(), inputs().detach().float()
    want, last = layer(x)
    y, state = layer.cuda()(x.cuda())
    torch.testing.assert_close((y.cpu(), state.cpu()), (want, last), rtol=5e-3, atol=5e-3)
