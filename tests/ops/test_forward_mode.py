"""Forward-mode derivatives: the tangent of a scan is a scan. Held to float64 differences and to reverse mode."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from statemix.ops import bdlru_step, hlru_step
from tests.nn.test_layers import LAYERS
from tests.ops.cases import BACKENDS, HARD_CASES, RECURRENCES, inputs, names, run
from tests.ops.test_gradients import straight_through

ALL_NAMES = [(recurrence, name) for recurrence in RECURRENCES for name in names(recurrence)]
EVERY_BACKEND = pytest.mark.parametrize("backend", BACKENDS)
EVERY_RECURRENCE = pytest.mark.parametrize("recurrence", RECURRENCES)
EVERY_NAME = pytest.mark.parametrize(("recurrence", "name"), ALL_NAMES)
PACKED = torch.tensor([0, 3, 3, 7])


def directions(tensors, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in tensors)


def differences(function, tensors, tangents, width=1e-6):
    """The tangent by central differences."""
    ahead = function(*(x + width * d for x, d in zip(tensors, tangents, strict=True)))
    behind = function(*(x - width * d for x, d in zip(tensors, tangents, strict=True)))
    return tuple((a - b) / (2 * width) for a, b in zip(ahead, behind, strict=True))


def case(recurrence, name="softmax", backend="auto", packed=False, **sizes):
    """A scan as a function of gates, values and state, and these in float64."""
    sizes = {"B": 1, "T": 7, "sequences": 3} if packed else {"T": 4, "N": 2, **sizes}
    tensors = inputs(recurrence, **sizes)
    if name == "relu":
        gates, *rest = tensors
        tensors = (gates + 0.05 * gates.sign(), *rest)  # away from the corner
    options = {"cu_seqlens": PACKED} if packed else {}
    return lambda *t: run(recurrence, *t, name=name, backend=backend, **options), tensors


def assert_differences(have, function, tensors, tangents):
    for got, want in zip(have, differences(function, tensors, tangents), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@EVERY_BACKEND
@EVERY_NAME
def test_jvp(recurrence, name, backend, packed):
    function, tensors = case(recurrence, name, backend, packed)
    tangents = directions(tensors)
    outputs, have = jvp(function, tensors, tangents)
    torch.testing.assert_close(outputs, function(*tensors))
    assert_differences(have, function, tensors, tangents)


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@EVERY_BACKEND
@pytest.mark.parametrize(("recurrence", "name"), HARD_CASES)
def test_jvp_of_hard_rows(recurrence, name, backend, packed):
    """Rows that are hard forward and soft backward have the tangents of the soft ones."""
    function, tensors = case(recurrence, name, backend, packed)
    options = {"cu_seqlens": PACKED} if packed else {}
    tangents = directions(tensors)
    stated = lambda *t: straight_through(recurrence, *t, name, **options)  # noqa: E731
    torch.testing.assert_close(jvp(function, tensors, tangents), jvp(stated, tensors, tangents))
    if not packed:
        places = (0, 1, 2)
        torch.testing.assert_close(jacfwd(function, places)(*tensors), jacrev(function, places)(*tensors))


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize(("backend", "packed"), [("reference", False), ("cpu", True)])
@EVERY_RECURRENCE
def test_tangents_of_some_inputs_alone(recurrence, backend, packed, which):
    name = "none" if recurrence == "affine" else "sigmoid"
    function, tensors = case(recurrence, name, backend, packed)

    def some(*chosen):
        return function(*[chosen[which.index(k)] if k in which else t for k, t in enumerate(tensors)])

    chosen = tuple(tensors[k] for k in which)
    tangents = directions(chosen)
    _, have = jvp(some, chosen, tangents)
    assert_differences(have, some, chosen, tangents)


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_dual_numbers(recurrence, backend):
    """With and without gradients switched on, also beside parameters that want some."""
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", backend)
    tangents = directions(tensors)
    _, want = jvp(function, tensors, tangents)
    for leaves in (tensors, [t.clone().requires_grad_() for t in tensors]):
        for mode in (torch.enable_grad, torch.no_grad):
            with mode(), forward_ad.dual_level():
                duals = [forward_ad.make_dual(t, d) for t, d in zip(leaves, tangents, strict=True)]
                have = [forward_ad.unpack_dual(out).tangent for out in function(*duals)]
            torch.testing.assert_close(tuple(have), want)
    with forward_ad.dual_level():  # nothing carries a tangent
        assert all(forward_ad.unpack_dual(out).tangent is None for out in function(*tensors))


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_jacobians_agree(recurrence, backend):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", backend, T=3)
    places = (0, 1, 2)
    torch.testing.assert_close(jacfwd(function, places)(*tensors), jacrev(function, places)(*tensors))


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_hessians_agree(recurrence, backend):
    """Forward over reverse, reverse over reverse, forward over forward, reverse over forward."""
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "tanh", backend, B=1, T=3, N=1)

    def loss(*tensors):
        states, final = function(*tensors)
        return states.sin().sum() + final.cos().sum()

    places = (0, 1, 2)
    want = jacrev(jacrev(loss, places), places)(*tensors)
    for have in (
        hessian(loss, places), jacfwd(jacfwd(loss, places), places), jacrev(jacfwd(loss, places), places)
    ):  # fmt: skip
        torch.testing.assert_close(have(*tensors), want)


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_a_tangent_of_a_tangent(recurrence, backend):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", backend, T=3)
    first, second = directions(tensors), directions(tensors, seed=2)
    inner = lambda *t: jvp(function, t, first)[1]  # noqa: E731
    _, have = jvp(inner, tensors, second)
    assert_differences(have, inner, tensors, second)


@EVERY_RECURRENCE
def test_third_derivatives(recurrence):
    """Forward mode twice over reverse mode, and over forward mode."""
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", T=3, N=1)
    first, second = directions(tensors), directions(tensors, seed=2)
    for inner in (
        lambda *t: torch.func.grad(lambda *t: sum(x.sin().sum() for x in function(*t)), (0, 1, 2))(*t),
        lambda *t: jvp(function, t, first)[1],
    ):
        along = lambda *t, inner=inner: jvp(inner, t, first)[1]  # noqa: E731
        _, have = jvp(along, tensors, second)
        assert_differences(have, along, tensors, second)


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_hessian_vector_products(recurrence, backend):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "silu", backend)
    tangents = directions(tensors)
    gradient = lambda *t: torch.func.grad(lambda *t: sum(x.sin().sum() for x in function(*t)), (0, 1, 2))(*t)  # noqa: E731
    _, have = jvp(gradient, tensors, tangents)
    assert_differences(have, gradient, tensors, tangents)


@pytest.mark.filterwarnings(
    "ignore:Attempted to insert a get_attr Node:UserWarning"
)  # torch's, of its own graph
@EVERY_BACKEND
@EVERY_RECURRENCE
def test_linearized(recurrence, backend):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", backend)
    outputs, tangent = linearize(function, *tensors)
    torch.testing.assert_close(outputs, function(*tensors))
    for seed in (1, 2):
        along = directions(tensors, seed)
        torch.testing.assert_close(tangent(*along), jvp(function, tensors, along)[1])


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_forward_and_reverse_are_adjoint(recurrence, backend):
    """<w, J v> = <J' w, v>, in float32 as well."""
    name = "none" if recurrence == "affine" else "softmax"
    for dtype in (torch.float64, torch.float32):
        tensors = inputs(recurrence, T=20, dtype=dtype)
        function = lambda *t: run(recurrence, *t, name=name, backend=backend)  # noqa: E731
        along = directions(tensors)
        outputs, ahead = jvp(function, tensors, along)
        assert [t.dtype for t in ahead] == [t.dtype for t in outputs]
        weights = directions(outputs, seed=3)
        back = vjp(function, *tensors)[1](weights)
        left = sum((w * t).double().sum() for w, t in zip(weights, ahead, strict=True))
        right = sum((d * t).double().sum() for d, t in zip(along, back, strict=True))
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-3)


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_many_tangents_at_once(recurrence, backend):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", backend)
    many = [torch.stack(d) for d in zip(directions(tensors), directions(tensors, 2), strict=True)]
    have = vmap(lambda *d: jvp(function, tensors, d)[1])(*many)
    for k in range(2):
        want = jvp(function, tensors, tuple(d[k] for d in many))[1]
        torch.testing.assert_close(tuple(h[k] for h in have), want)


@EVERY_BACKEND
@EVERY_RECURRENCE
def test_gradcheck(recurrence, backend):
    """Torch's own check: reverse and forward mode, batched gradients, against differences."""
    function, tensors = case(recurrence, names(recurrence)[0], backend, T=3, N=1)
    leaves = tuple(t.clone().requires_grad_() for t in tensors)
    options = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(function, leaves, **options)


@EVERY_RECURRENCE
def test_gradgradcheck(recurrence):
    function, tensors = case(recurrence, "none" if recurrence == "affine" else "softmax", B=1, T=2, N=1)
    leaves = tuple(t.clone().requires_grad_() for t in tensors)
    assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=True, check_rev_over_rev=True)


@pytest.mark.parametrize("sizes", [(2, 0), (0, 3), (0, 0)], ids=str)
@EVERY_BACKEND
@EVERY_RECURRENCE
def test_nothing_has_tangents_of_its_shape(recurrence, backend, sizes):
    """No time: the tangent of the final state is that of the first. No batch: empty."""
    tensors = inputs(recurrence, *sizes)
    along = directions(tensors)
    (states, final), (d_states, d_final) = jvp(
        lambda *t: run(recurrence, *t, backend=backend), tensors, along
    )
    assert d_states.shape == states.shape
    torch.testing.assert_close(d_final, along[2] if sizes[1] == 0 else torch.zeros_like(final))


STEPS = {"bdlru": bdlru_step, "hlru": hlru_step}


@EVERY_BACKEND
@pytest.mark.parametrize("recurrence", STEPS)
def test_one_token(recurrence, backend):
    gates, values, state = inputs(recurrence, T=1)
    tensors = (gates[:, 0], values[:, 0], state)
    function = lambda *t: (STEPS[recurrence](*t, backend=backend),)  # noqa: E731
    tangents = directions(tensors)
    _, have = jvp(function, tensors, tangents)
    assert_differences(have, function, tensors, tangents)
    torch.testing.assert_close(jacfwd(function, (0, 1, 2))(*tensors), jacrev(function, (0, 1, 2))(*tensors))


def layer_case(kind, backend="auto", name="softmax"):
    torch.manual_seed(0)
    layer = LAYERS[kind](backend=backend, normalization=name).double()
    return layer, (torch.randn(2, 4, 6, dtype=torch.float64), torch.randn_like(layer.initial_state(2)))


@pytest.mark.parametrize(("backend", "name"), [("reference", "softmax"), ("cpu", "softmax"), ("cpu", "silu")])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, backend, name):
    """By `forward` and by `step`; from x, from the state, and from both."""
    layer, (x, state) = layer_case(kind, backend, name)
    for function, tensors in (
        (layer, (x, state)),
        (lambda x: layer(x), (x,)),
        (lambda state: layer(x, state), (state,)),
        (layer.step, (x[:, 0], state)),
    ):
        tangents = directions(tensors)
        outputs, have = jvp(function, tensors, tangents)
        torch.testing.assert_close(outputs, function(*tensors))
        assert_differences(have, function, tensors, tangents)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_by_their_parameters(kind):
    """A jvp along weights, as curvature methods take it."""
    layer, (x, state) = layer_case(kind)
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    along = dict(zip(weights, directions(tuple(weights.values())), strict=True))
    function = lambda *p: torch.func.functional_call(layer, dict(zip(weights, p, strict=True)), (x, state))  # noqa: E731
    tensors, tangents = tuple(weights.values()), tuple(along.values())
    _, have = jvp(function, tensors, tangents)
    assert_differences(have, function, tensors, tangents)


@pytest.mark.parametrize("kind", LAYERS)
def test_second_derivatives_of_layers(kind):
    layer, (x, state) = layer_case(kind)
    x = x[:1, :2]

    def loss(x):
        y, final = layer(x, state[:1])
        return y.sin().sum() + final.cos().sum()

    want = jacrev(jacrev(loss))(x)
    for have in (hessian(loss), jacfwd(jacfwd(loss)), jacrev(jacfwd(loss))):
        torch.testing.assert_close(have(x), want)
    torch.testing.assert_close(jacfwd(lambda x: layer(x)[0])(x), jacrev(lambda x: layer(x)[0])(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_with_packed_sequences(kind):
    layer, _ = layer_case(kind)
    x, state = torch.randn(1, 7, 6, dtype=torch.float64), torch.randn_like(layer.initial_state(3))
    function = lambda x, state: layer(x, state, PACKED)  # noqa: E731
    tangents = directions((x, state))
    _, have = jvp(function, (x, state), tangents)
    assert_differences(have, function, (x, state), tangents)


@pytest.mark.parametrize("kind", LAYERS)
def test_dual_numbers_through_a_layer_in_training(kind):
    """Parameters want gradients, x carries a tangent; the tangent's own gradient can be taken."""
    layer, (x, state) = layer_case(kind)
    along = directions((x,))[0]
    _, want = jvp(lambda x: layer(x, state), (x,), (along,))
    with forward_ad.dual_level():
        outputs = layer(forward_ad.make_dual(x, along), state)
        have = tuple(forward_ad.unpack_dual(out).tangent for out in outputs)
        torch.testing.assert_close(have, want)
        (have[0].square().sum() + have[1].square().sum()).backward()
    used = [p for name, p in layer.named_parameters() if name != "initial"]  # a state was passed
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_vmap_over_nothing_keeps_its_shape(recurrence, backend):
    tensors = [x.expand(0, *x.shape) for x in inputs(recurrence, T=4, N=3, m=2)]
    states, final = vmap(lambda *t: run(recurrence, *t, backend=backend))(*tensors)
    assert states.shape == tensors[1].shape
    assert final.shape == tensors[2].shape
    grads = vmap(torch.func.grad(lambda *t: run(recurrence, *t, backend=backend)[0].sum(), (0, 1, 2)))(
        *tensors
    )
    assert [g.shape for g in grads] == [t.shape for t in tensors]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_mapped_over_nothing(kind):
    layer, (x, state) = layer_case(kind)
    y, final = vmap(layer)(x.expand(0, *x.shape), state.expand(0, *state.shape))
    assert y.shape == (0, *x.shape) and final.shape == (0, *state.shape)
    y, final = vmap(layer.step)(x[:, 0].expand(0, 2, 6), state.expand(0, *state.shape))
    assert y.shape == (0, 2, 6) and final.shape == (0, *state.shape)
