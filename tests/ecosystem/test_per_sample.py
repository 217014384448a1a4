"""Gradients of every sample apart: Opacus, and `torch.func`."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, vmap

from statemix import BDLRU, HLRU
from statemix.models import LanguageModel
from tests.ecosystem.layers import LAYERS, build, by_steps, inputs

PACKAGE_WARNINGS = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:opacus",
    "ignore:Full backward hook is firing:UserWarning",
    "ignore:In CPU autocast, but the target dtype is not supported:UserWarning",
)
MODELS = {
    "bdlru": lambda: LanguageModel(11, 8, lambda dim: BDLRU(dim, block_size=2, num_blocks=6)),
    "hlru": lambda: LanguageModel(11, 8, lambda dim: HLRU(dim, order=2, num_channels=6)),
}


def loss_of(outputs):
    y, final = outputs
    return y.sin().sum() + final.cos().sum()


def one_by_one(module, run, samples):
    """The gradient of each sample by itself: name -> [B, ...]."""
    grads = []
    for sample in samples:
        module.zero_grad()
        run(module, sample[None]).backward()
        grads.append({name: p.grad.clone() for name, p in module.named_parameters()})
    return {name: torch.stack([g[name] for g in grads]) for name in grads[0]}


def opacus_grads(module, run, samples, **options):
    """The same from Opacus."""
    opacus = pytest.importorskip("opacus", reason="needs opacus (extra dev)")
    wrapped = opacus.GradSampleModule(module, batch_first=True, loss_reduction="sum", **options)
    run(wrapped, samples).backward()
    got = {name: p.grad_sample for name, p in wrapped._module.named_parameters() if p.requires_grad}
    wrapped.remove_hooks()
    return got


@PACKAGE_WARNINGS
@pytest.mark.parametrize("way", ["forward", "step"])
@pytest.mark.parametrize("kind", ["bdlru", "hlru-window", "hlru-newest"])
def test_opacus_on_a_layer(kind, way):
    layer = build(kind)
    x, _ = inputs(layer)

    def run(module, x):
        inner = getattr(module, "_module", module)
        state = inner.initial_state(x.shape[0])
        return loss_of(module(x) if way == "forward" else by_steps(inner, x, state))

    want = one_by_one(layer, run, x)
    got = opacus_grads(layer, run, x)
    for name, exact in want.items():
        torch.testing.assert_close(got[name], exact)


@PACKAGE_WARNINGS
@pytest.mark.parametrize("kind", ["bdlru-free", "hlru-free"])
def test_opacus_beside_free_gates(kind):
    """Opacus has a rule for a layer's linears, and none for a parameter of the layer itself."""
    layer = build(kind)
    x, _ = inputs(layer)
    run = lambda module, x: loss_of(module(x))  # noqa: E731
    want = one_by_one(layer, run, x)
    layer.free_gates.requires_grad_(False)
    got = opacus_grads(layer, run, x)
    for name in ("values.weight", "readout_projection.weight"):
        torch.testing.assert_close(got[name], want[name])


@PACKAGE_WARNINGS
@pytest.mark.parametrize("kind", MODELS)
def test_opacus_on_a_model(kind):
    torch.manual_seed(0)
    model = MODELS[kind]()
    tokens = torch.randint(11, (3, 6))
    run = lambda module, tokens: module(tokens)[0].sin().sum()  # noqa: E731
    want = one_by_one(model, run, tokens)
    got = opacus_grads(model, run, tokens)
    for name, exact in want.items():
        torch.testing.assert_close(got[name], exact)


@PACKAGE_WARNINGS
@pytest.mark.filterwarnings("ignore::UserWarning:opacus", "ignore:Secure RNG turned off:UserWarning")
def test_private_training():
    """Opacus' engine: gradients are clipped sample by sample, noise is added, weights move."""
    opacus = pytest.importorskip("opacus", reason="needs opacus (extra dev)")
    torch.manual_seed(0)
    model = MODELS["bdlru"]()
    data = torch.utils.data.TensorDataset(torch.randint(11, (8, 6)))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    model, optimizer, loader = opacus.PrivacyEngine().make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), data_loader=loader,
        noise_multiplier=1.0, max_grad_norm=1.0,
    )  # fmt: skip
    before = [p.detach().clone() for p in model.parameters()]
    for (tokens,) in loader:
        if len(tokens):
            logits, _ = model(tokens)
            logits.transpose(1, 2).logsumexp(1).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for old, new in zip(before, model.parameters(), strict=True):
        assert new.isfinite().all() and not torch.equal(old, new)


@pytest.mark.parametrize("way", ["forward", "step"])
@pytest.mark.parametrize("kind", LAYERS)
def test_torch_func_on_a_layer(kind, way):
    layer = build(kind)
    x, _ = inputs(layer)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    class Run(torch.nn.Module):
        """A layer whose forward is the loss."""

        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return loss_of(layer(x) if way == "forward" else by_steps(layer, x, layer.initial_state(len(x))))

    def loss(weights, x):
        return functional_call(Run(), {f"layer.{name}": w for name, w in weights.items()}, (x[None],))

    want = one_by_one(Run(), lambda module, x: module(x), x)
    got = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    for name, exact in want.items():
        torch.testing.assert_close(got[name.removeprefix("layer.")], exact)


@pytest.mark.parametrize("kind", LAYERS)
def test_an_ensemble_of_layers(kind):
    """`stack_module_state`: many layers of one shape as one call."""
    layers = [build(kind), build(kind)]
    with torch.no_grad():
        for parameter in layers[1].parameters():
            parameter.neg_()
    weights, buffers = torch.func.stack_module_state(layers)
    x, state = inputs(layers[0])
    got = vmap(lambda w, b: functional_call(layers[0], (w, b), (x, state)))(weights, buffers)
    for k, layer in enumerate(layers):
        torch.testing.assert_close((got[0][k], got[1][k]), layer(x, state))
