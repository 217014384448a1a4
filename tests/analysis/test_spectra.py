"""Eigenvalues of known matrices, and of layers whose transitions are set by hand."""

from __future__ import annotations

import pytest
import torch

from statemix.analysis.spectra import companion, transition_eigenvalues
from statemix.models import LanguageModel
from statemix.nn import BDLRU, HLRU

TOKENS = torch.arange(12).reshape(2, 6) % 5


def test_the_roots_of_a_companion_matrix_are_the_polynomials():
    """h_t = 6 h_{t-1} - 11 h_{t-2} + 6 h_{t-3}: the roots are 1, 2, 3."""
    values = torch.linalg.eigvals(companion(torch.tensor([6.0, -11.0, 6.0], dtype=torch.float64)))
    torch.testing.assert_close(values.real.sort().values, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))


@pytest.mark.parametrize("selective", [True, False])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_shapes_and_the_unit_disc(m, selective):
    layers = {
        "bdlru": lambda dim: BDLRU(dim, block_size=m, num_blocks=3, selective=selective),
        "hlru": lambda dim: HLRU(dim, order=m, num_channels=3, selective=selective),
    }
    for make in layers.values():
        model = LanguageModel(5, 8, make, depth=2)
        before = [p.clone() for p in model.parameters()]
        found = transition_eigenvalues(model, TOKENS)
        assert [tuple(values.shape) for values in found] == [(2 * 6 * 3, m)] * 2
        for values in found:
            assert values.is_complex()
            assert (values.abs() <= 1 + 1e-6).all()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_that_permutes_has_roots_of_unity():
    """Gates so large that softmax makes each row one-hot: a cycle of three."""
    layer = BDLRU(4, block_size=3, num_blocks=1, selective=False)
    model = LanguageModel(5, 4, lambda dim: layer, depth=1)
    with torch.no_grad():
        layer.free_gates.fill_(-100)
        for row, column in ((0, 1), (1, 2), (2, 0)):
            layer.free_gates[column, :, row] = 100
    (values,) = transition_eigenvalues(model, TOKENS, max_matrices=4)
    assert values.shape == (4, 3)
    torch.testing.assert_close(values**3, torch.ones_like(values), atol=1e-6, rtol=0)
    assert (values.imag.abs() > 0.8).sum() == 8


def test_known_transitions_through_the_model():
    """Free gates without normalisation are the matrices themselves: a triangular block, a two-tap recurrence."""
    options = {"selective": False, "normalization": "none"}
    cases = (
        (
            BDLRU(4, block_size=2, num_blocks=1, **options),
            [[0.5, 0.25, 1.0], [0.0, -0.75, 1.0]],
            [-0.75, 0.5],
        ),
        (HLRU(4, order=2, num_channels=1, **options), [0.0, -0.25, 1.0], [-0.5j, 0.5j]),  # z² = -1/4
    )
    for layer, gates, expected in cases:
        model = LanguageModel(5, 4, lambda dim, layer=layer: layer, depth=1)
        with torch.no_grad():
            layer.free_gates.copy_(torch.tensor([gates]).movedim(-1, 0))
        (values,) = transition_eigenvalues(model, TOKENS, max_matrices=1)
        assert sorted(values[0].tolist(), key=lambda z: (z.real, z.imag)) == pytest.approx(expected)


def test_the_subsample_is_the_same_every_time():
    model = LanguageModel(5, 8, lambda dim: BDLRU(dim, block_size=2, num_blocks=3))
    first, again = (transition_eigenvalues(model, TOKENS, max_matrices=7) for _ in range(2))
    assert [len(values) for values in first] == [7, 7]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("m", [1, 3])
def test_nan_weights_give_nan_and_leave_the_others_alone(m):
    """LAPACK never sees them: it may crash the process."""
    model = LanguageModel(5, 8, lambda dim: BDLRU(dim, block_size=m, num_blocks=2, selective=False), depth=1)
    with torch.no_grad():
        model.layers[0].mixer.free_gates[:, 0] = float("nan")
    (values,) = transition_eigenvalues(model, TOKENS)
    broken = values.unflatten(0, (-1, 2))
    assert broken[:, 0].isnan().all()
    assert broken[:, 1].abs().isfinite().all()


def test_errors():
    model = LanguageModel(5, 8, lambda dim: BDLRU(dim, block_size=2))
    with pytest.raises(ValueError, match="max_matrices: got 0"):
        transition_eigenvalues(model, TOKENS, max_matrices=0)
