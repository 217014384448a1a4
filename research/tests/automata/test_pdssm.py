"""PD-SSM of protocol A against its equations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from statemix_research.automata.pdssm import loops
from statemix_research.automata.pdssm.model import PDSSMTracker
from statemix_research.automata.recipes import get_recipe

ROOT = Path(__file__).parents[3]


def compare_passes(device, dtype, sizes):
    """The kernels with the loops. This file, run as a program, does the same in the interpreter."""
    from statemix_research.automata.pdssm import kernels

    torch.manual_seed(0)
    for batch, length, n, k in sizes:
        weights = torch.randn(batch, length, k, device=device, dtype=dtype).softmax(-1)
        dictionary = torch.randn(k, n, n, device=device, dtype=dtype)
        factors, inputs, grad = torch.randn(3, batch, length, n, 2, device=device, dtype=dtype)
        factors = factors / 2  # below 1 mostly, as a sigmoid
        start = torch.randn(batch, n, 2, device=device, dtype=dtype)
        mixture = (weights @ dictionary.flatten(1)).unflatten(-1, (n, n))
        columns = loops.choose(weights, dictionary)
        chosen = mixture.gather(-1, kernels.choose(weights, dictionary).unsqueeze(-1))
        torch.testing.assert_close(chosen, mixture.max(-1, keepdim=True).values)
        states = loops.run(columns, factors, inputs, start)
        torch.testing.assert_close(kernels.run(columns, factors, inputs, start), states)
        before = torch.cat([start.unsqueeze(1), states[:, :-1]], 1)
        passed = loops.run_back(columns, factors, before, grad)
        torch.testing.assert_close(kernels.run_back(columns, factors, before, grad), passed)
        tokens = torch.randint(5, (batch, length), device=device)
        for name, *arguments in (
            ("choose_back", weights, dictionary, passed[1], before),
            ("outer_by_token", tokens, 5, passed[1], before),
        ):
            got, want = (getattr(passes, name)(*arguments) for passes in (kernels, loops))
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def by_matrices(layer, x):
    """A block with every P_t written out; the gradient passes through a softmax in its place."""
    weights = layer.choice(x).softmax(-1)
    soft = torch.einsum("btk,kmn->btmn", weights, layer.dictionary).softmax(-1)
    hard = torch.nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    matrices = (hard - soft).detach() + soft
    factors = torch.polar(layer.magnitude(x), 2 * torch.pi * layer.phase(x))
    inputs = torch.view_as_complex((x @ layer.inputs.T).unflatten(-1, (-1, 2)))
    h = torch.zeros_like(inputs[:, 0])
    h[:, 0] = 1
    states = []
    for t in range(x.shape[1]):
        h = factors[:, t] * (matrices[:, t].to(h.dtype) @ h.unsqueeze(-1)).squeeze(-1) + inputs[:, t]
        states.append(h)
    read = layer.readout(torch.view_as_real(torch.stack(states, 1)).flatten(-2))
    return layer.norm(read + layer.skip * x)


@pytest.mark.parametrize("length", [1, 7])
def test_the_model_is_that_of_the_matrices(length):
    torch.manual_seed(0)
    model = PDSSMTracker(get_recipe("pdssm", dim=6, depth=2), 5).double()
    tokens = torch.randint(5, (3, length))
    x = model.embedding(tokens)
    for layer in model.layers:
        x = by_matrices(layer, x)
    found = []
    for logits in (model(tokens)[0], model.head(x)):
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        found.append((logits, *gradients))
    torch.testing.assert_close(*found)
    assert all(gradient.any() for gradient in found[0][1:])


def test_the_kernels_are_the_loops_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "research.tests.automata.test_pdssm"],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_kernels_are_the_loops_on_a_gpu():
    compare_passes("cuda", torch.float32, ((2, 5, 16, 8), (16, 40, 128, 8), (1, 1, 32, 3)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_model_has_the_same_gradients_on_a_gpu():
    torch.manual_seed(0)
    model = PDSSMTracker(get_recipe("pdssm", dim=32, depth=2), 5)
    tokens, found = torch.randint(5, (4, 9)), []
    for device in ("cpu", "cuda"):
        logits = model.to(device)(tokens.to(device))[0]
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        found.append([x.cpu() for x in (logits, *gradients)])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    from statemix_research.automata.pdssm import kernels

    import tests.ops.interpreter  # noqa: F401 - changes it

    kernels.PARTS = 2  # the interpreter runs programs one by one
    compare_passes("cpu", torch.float64, ((1, 1, 16, 3), (3, 3, 16, 2)))
