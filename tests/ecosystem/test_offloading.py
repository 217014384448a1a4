"""Accelerate: weights that lie elsewhere and come when a module is called."""

from __future__ import annotations

import copy

import pytest
import torch

from statemix import BDLRU, HLRU
from statemix.models import LanguageModel
from tests.ecosystem.layers import LAYERS, build, by_steps, inputs

pytestmark = pytest.mark.filterwarnings(
    "ignore:The following device_map keys:UserWarning"
)  # parameters by name
CPU = torch.device("cpu")


def accelerate():
    """The package, imported where a test runs, not where tests are collected."""
    return pytest.importorskip("accelerate", reason="needs accelerate (extra dev)")


def on_disk(module, folder):
    return accelerate().disk_offload(module, folder, execution_device=CPU)


def dispatched(module, folder):
    """Half of the modules on the disk, half in memory."""
    names = [
        name for name, child in module.named_modules() if next(child.parameters(False), None) is not None
    ]
    places = {name: ("disk" if k % 2 else "cpu") for k, name in enumerate(names) if name}
    places.update({name: "disk" for name, _ in module.named_parameters(recurse=False)})
    return accelerate().dispatch_model(
        module, places, main_device="cpu", offload_dir=folder, force_hooks=True
    )


OFFLOADED = {
    "cpu_offload": lambda module, folder: accelerate().cpu_offload(module, execution_device=CPU),
    "disk_offload": on_disk,
    "device_map": dispatched,
}


@torch.no_grad()
@pytest.mark.parametrize("how", OFFLOADED)
@pytest.mark.parametrize("kind", LAYERS)
def test_an_offloaded_layer(kind, how, tmp_path):
    plain = build(kind)
    layer = OFFLOADED[how](copy.deepcopy(plain), tmp_path)
    assert any(p.device.type == "meta" for p in layer.parameters())
    for T in (1, 7):
        x, state = inputs(plain, T)
        torch.testing.assert_close(layer(x, state), plain(x, state))
        torch.testing.assert_close(layer(x), plain(x))
        torch.testing.assert_close(by_steps(layer, x, state), by_steps(plain, x, state))


@torch.no_grad()
@pytest.mark.parametrize("how", OFFLOADED)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_first_state_lies_where_the_layer_computes(kind, how, tmp_path):
    layer = OFFLOADED[how](build(kind), tmp_path)
    state = layer.initial_state(2)
    assert (state.device.type, state.dtype) == ("cpu", torch.float64)
    x, _ = inputs(layer)
    torch.testing.assert_close(by_steps(layer, x, state), layer(x))


@torch.no_grad()
@pytest.mark.parametrize("how", OFFLOADED)
@pytest.mark.parametrize("mixer", ["bdlru", "hlru"])
def test_an_offloaded_model(mixer, how, tmp_path):
    torch.manual_seed(0)
    build_mixer = {
        "bdlru": lambda dim: BDLRU(dim, block_size=2, num_blocks=6),
        "hlru": lambda dim: HLRU(dim, order=2, num_channels=6),
    }[mixer]
    plain = LanguageModel(11, 8, build_mixer).double()
    tokens = torch.randint(11, (2, 6))
    want, _ = plain(tokens)
    model = OFFLOADED[how](plain, tmp_path)
    torch.testing.assert_close(model(tokens)[0], want)
    states, outputs = model.initial_states(2), []
    for t in range(6):
        y, states = model.step(tokens[:, t], states)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), want)


@torch.no_grad()
def test_hooks_go_again():
    plain = build("bdlru")
    x, state = inputs(plain)
    layer = accelerate().cpu_offload(copy.deepcopy(plain), execution_device=CPU)
    accelerate().hooks.remove_hook_from_module(layer, recurse=True)
    assert all(p.device.type == "cpu" for p in layer.parameters())
    torch.testing.assert_close(layer(x, state), plain(x, state))


@torch.no_grad()
@pytest.mark.parametrize("kind", LAYERS)
def test_empty_weights_and_loading(kind, tmp_path):
    """The way of large models: built without memory, filled from a file, spread by a map."""
    plain = build(kind)
    torch.save(plain.state_dict(), tmp_path / "weights.bin")
    with accelerate().init_empty_weights():
        empty = build(kind)
    assert all(p.device.type == "meta" for p in empty.parameters())
    layer = accelerate().load_checkpoint_and_dispatch(
        empty, str(tmp_path / "weights.bin"), device_map={"": "cpu"}
    )
    x, state = inputs(plain)
    torch.testing.assert_close(layer(x, state), plain(x, state))


def test_training_with_an_accelerator():
    """`prepare`, accumulation and mixed precision, as in a training script."""
    torch.manual_seed(0)
    model = LanguageModel(11, 8, lambda dim: BDLRU(dim, block_size=2, num_blocks=6))
    accelerator = accelerate().Accelerator(cpu=True, mixed_precision="bf16")
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    logits, _ = model(torch.randint(11, (2, 6)))
    accelerator.backward(logits.float().logsumexp(-1).mean())
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
