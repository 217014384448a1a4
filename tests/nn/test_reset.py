"""`reset_parameters` gives what the constructor gives: after memory without numbers, for some of the parameters and
for all, whoever calls it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from statemix.models import MODELS
from statemix.nn import BDLRU, HLRU

LAYERS = {
    "bdlru": lambda **k: BDLRU(12, block_size=3, num_blocks=8, **k),
    "hlru-window": lambda **k: HLRU(12, order=3, num_channels=16, **k),
    "hlru-newest": lambda **k: HLRU(12, order=3, num_channels=16, readout="newest", **k),
}
OPTIONS = {
    "default": {},
    "gate_bias": {"gate_bias": -3.0},
    "transition_bias": {"normalization": "relu", "transition_bias": 1.0},
    "both": {"gate_bias": -2.0, "transition_bias": 0.5, "normalization": "sigmoid"},
    "free": {"selective": False},
    "free with biases": {"selective": False, "gate_bias": -2.0, "transition_bias": 0.5},
    "half precision": {"dtype": torch.bfloat16, "gate_bias": -2.0},
    "learned start": {"learned_initial_state": True, "hard": True, "gate_bias": -1.0},
    "double": {"dtype": torch.float64, "transition_bias": 0.5},
}
EVERY_CASE = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
EVERY_LAYER = pytest.mark.parametrize("kind", LAYERS)


def build(kind, options, seed=0, **more):
    torch.manual_seed(seed)
    return LAYERS[kind](**options, **more)


def spoil(module):
    """What memory without numbers may hold."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    return module


def assert_equal(module, other):
    names, others = dict(module.named_parameters()), dict(other.named_parameters())
    assert list(names) == list(others)
    for name, parameter in names.items():
        assert parameter.dtype == others[name].dtype
        assert torch.equal(parameter, others[name]), name


@EVERY_CASE
@EVERY_LAYER
def test_a_reset_under_a_seed_is_the_constructor_under_it(kind, options):
    layer = spoil(build(kind, options))
    torch.manual_seed(7)
    layer.reset_parameters()
    assert_equal(layer, build(kind, options, seed=7))


@EVERY_CASE
@EVERY_LAYER
def test_from_the_meta_device(kind, options):
    """Built without memory, in both ways that torch knows, then given memory and reset."""
    with torch.device("meta"):
        inside = build(kind, options)
    for layer in (inside, build(kind, options, device="meta")):
        assert all(p.is_meta for p in layer.parameters())
        layer.reset_parameters()  # on the meta device it does nothing, and says nothing
        spoil(layer.to_empty(device="cpu"))
        torch.manual_seed(7)
        layer.reset_parameters()
        assert_equal(layer, build(kind, options, seed=7))


@pytest.mark.parametrize("order", [iter, reversed], ids=["parents first", "children first"])
@EVERY_CASE
@EVERY_LAYER
def test_a_walk_over_all_modules(kind, options, order):
    """As a trainer resets a model: every module that has `reset_parameters`, in any order, some of them twice."""
    layer = spoil(build(kind, options))
    for module in order(list(layer.modules())):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    check_started(layer, build(kind, options))


def check_started(layer, plain):
    """Filled numbers are equal; drawn ones lie where the constructor's do."""
    for (name, have), want in zip(layer.named_parameters(), plain.parameters(), strict=True):
        have, want = have.double(), want.double()
        assert have.isfinite().all(), name
        if name.endswith("bias"):
            assert torch.equal(have, want), name
        else:
            if not name.endswith("initial"):  # normal, and others uniform
                bound = 1.0 if name.endswith("free_gates") else layer_bound(layer, name)
                assert have.abs().max() <= bound * 1.01 and have.abs().max() > 0.8 * bound, name
            assert (have.std() / want.std() - 1).abs() < 4 * want.numel() ** -0.5, name
            assert (have.mean() - want.mean()).abs() < 4 * want.std() * want.numel() ** -0.5, name


def layer_bound(layer, name):
    """The range of a linear layer's first weights: 1 / sqrt(columns)."""
    return layer.get_parameter(name).shape[1] ** -0.5


@EVERY_CASE
@EVERY_LAYER
def test_linears_reset_one_by_one(kind, options):
    """A walk that meets the modules which hold parameters, and not the layer: what deferred initialisation does."""
    layer = build(kind, options)
    trained = {name: p.detach().clone() for name, p in layer.named_parameters()}
    for name, module in layer.named_children():
        spoil(module)
        module.reset_parameters()
        assert all(p.isfinite().all() for p in module.parameters())
        for other, parameter in layer.named_parameters():
            if not other.startswith(name):
                assert torch.equal(parameter, trained[other]), other
        layer.load_state_dict(trained)
    for module in layer.children():
        module.reset_parameters()
    check_started(layer, build(kind, options))


@EVERY_CASE
@EVERY_LAYER
def test_twice_and_after_training(kind, options):
    layer = build(kind, options)
    for _ in range(2):
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(1)
        torch.manual_seed(7)
        layer.reset_parameters()
        assert_equal(layer, build(kind, options, seed=7))
    assert all(p.requires_grad and p.grad_fn is None for p in layer.parameters())


@EVERY_LAYER
def test_parameters_stay_the_same_objects(kind):
    """An optimiser that was built before the reset still trains them; frozen ones stay frozen."""
    layer = build(kind, {})
    before = list(layer.parameters())
    layer.values.weight.requires_grad_(False)
    layer.reset_parameters()
    assert all(a is b for a, b in zip(before, layer.parameters(), strict=True))
    assert not layer.values.weight.requires_grad


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
@EVERY_LAYER
def test_a_copy_resets_itself_and_not_its_original(kind, copied):
    layer = build(kind, {"gate_bias": -3.0})
    kept = {name: p.detach().clone() for name, p in layer.named_parameters()}
    twin = spoil(copied(layer))
    twin.reset_parameters()
    check_started(twin, layer)
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, kept[name])
    spoil(twin)
    del layer
    for module in twin.children():
        module.reset_parameters()
    assert all(p.isfinite().all() for p in twin.parameters())


@EVERY_CASE
@EVERY_LAYER
def test_skipped_at_first(kind, options):
    """`torch.nn.utils.skip_init`, which builds on the meta device and takes memory as it comes."""
    kinds = {"bdlru": BDLRU, "hlru-window": HLRU, "hlru-newest": HLRU}
    sizes = {
        "bdlru": {"block_size": 3, "num_blocks": 8},
        "hlru-window": {"order": 3, "num_channels": 16},
        "hlru-newest": {"order": 3, "num_channels": 16, "readout": "newest"},
    }
    layer = spoil(nn.utils.skip_init(kinds[kind], 12, **sizes[kind], **options))
    torch.manual_seed(7)
    layer.reset_parameters()
    assert_equal(layer, build(kind, options, seed=7))


@EVERY_LAYER
def test_skipped_with_accelerate(kind):
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate (extra dev)")
    options = {"gate_bias": -3.0}
    with accelerate.init_empty_weights():
        layer = build(kind, options)
    assert all(p.is_meta for p in layer.parameters())
    spoil(layer.to_empty(device="cpu"))
    torch.manual_seed(7)
    layer.reset_parameters()
    assert_equal(layer, build(kind, options, seed=7))


@EVERY_LAYER
def test_a_replaced_linear_is_reset_as_it_is(kind):
    """Linears without a bias, of other classes, or frozen in a wrapper without a reset of its own."""
    layer = build(kind, {})
    layer.gates = nn.Linear(layer.gates.in_features, layer.gates.out_features, bias=False)
    layer.values = nn.Sequential(layer.values, nn.Identity())
    spoil(layer)
    layer.reset_parameters()
    assert all(p.isfinite().all() for p in layer.parameters())
    layer(torch.randn(2, 5, 12))


def test_the_old_name_still_sets_gates_alone():
    layer = build("bdlru", {"gate_bias": -3.0})
    weights = layer.gates.weight.detach().clone()
    layer.gates.bias.data.fill_(9)
    layer.reset_gates()
    assert torch.equal(layer.gates.bias, build("bdlru", {"gate_bias": -3.0}).gates.bias)
    assert torch.equal(layer.gates.weight, weights)


@pytest.mark.parametrize("order", [iter, reversed], ids=["parents first", "children first"])
@pytest.mark.parametrize("free", [False, True], ids=["selective", "free"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_reset_by_a_walk(name, free, order):
    """Every parameter is finite and every gate's bias the constructor's; linears start as torch's do or as the
    model's."""
    options = {"max_length": 32} if name == "autoencoder" else {}
    mixer = lambda dim: BDLRU(dim, block_size=4, gate_bias=-1.5, selective=not free)  # noqa: E731
    with torch.device("meta"):
        model = MODELS[name](50, 64, mixer, **options)
    spoil(model.to_empty(device="cpu"))
    for module in order(list(model.modules())):
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    plain = MODELS[name](50, 64, mixer, **options)
    for (place, have), want in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert have.isfinite().all(), place
        if place.endswith("gates.bias") or "norm" in place:
            assert torch.equal(have, want), place
    assert all(p.isfinite().all() for p in model.parameters())
    logits, _ = model(torch.randint(50, (2, 6)))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_resets_itself(name):
    """One call gives weights distributed as the model's own first ones."""
    options = {"max_length": 32} if name == "autoencoder" else {}
    mixers = {
        "bdlru": lambda dim: BDLRU(dim, block_size=4, gate_bias=-1.5),
        "hlru": lambda dim: HLRU(dim, order=2, selective=False),
    }
    for mixer in mixers.values():
        model = spoil(MODELS[name](50, 64, mixer, **options))
        model.reset_parameters()
        plain = MODELS[name](50, 64, mixer, **options)
        for (place, have), want in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert have.isfinite().all(), place
            if want.std() == 0 or want.numel() == 1:
                assert torch.equal(have, want), place
            else:
                assert (have.std() / want.std() - 1).abs() < 5 * want.numel() ** -0.5, place
