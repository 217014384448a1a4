"""A normalisation of one's own: one line in the table, run by the reference backend."""

from __future__ import annotations

import pytest
import torch

from statemix import BDLRU, bdlru_scan, hlru_scan
from statemix.ops import NORMALIZATIONS, explain_backend, normalize


@pytest.fixture
def toy(monkeypatch):
    """exp(-|g|) over the sum of the row."""
    monkeypatch.setitem(NORMALIZATIONS, "toy", lambda gates: torch.softmax(-gates.abs(), dim=-1))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_it_runs_and_has_gradients(toy, backend):
    gates = torch.randn(2, 5, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 5, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(gates, values):
        return bdlru_scan(gates, values, normalization="toy", backend=backend)

    want, _ = bdlru_scan(normalize(gates, "toy"), values, normalization="none", backend="reference")
    torch.testing.assert_close(run(gates, values)[0], want)
    assert torch.autograd.gradcheck(run, (gates, values))
    torch.func.jvp(run, (gates, values), (gates, values))
    layer = BDLRU(8, block_size=2, normalization="toy", backend=backend)
    y, state = layer(torch.randn(1, 4, 8))
    y.sum().backward()
    assert layer.gates.weight.grad.abs().sum() > 0
    layer.step(torch.randn(1, 8), state)


def test_compiled_kernels_fall_back_or_refuse(toy):
    assert explain_backend("cpu", torch.float32, "toy")[0] == "reference"
    name, why = explain_backend("cuda", torch.float32, "toy")
    assert name == "reference" and "know no normalization 'toy'" in why
    for backend in ("cpu", "triton"):
        with pytest.raises(ValueError, match=f"backend: '{backend}' cannot run: .*no normalization 'toy'"):
            hlru_scan(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1), normalization="toy", backend=backend)


def test_errors_list_it(toy):
    with pytest.raises(ValueError, match=r"expected one of 'softmax', .*'toy'"):
        normalize(torch.zeros(2), "l2")
