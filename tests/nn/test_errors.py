"""Bad input to the layers."""

from __future__ import annotations

import pytest
import torch

from statemix.nn import BDLRU, HLRU, build_mixer

X = torch.randn(2, 4, 6)


def layer(**options):
    return BDLRU(6, **{"block_size": 2, **options})


CASES = {
    "no dim": (lambda: BDLRU(0, block_size=2), ValueError, "dim: got 0, expected at least 1"),
    "dim float": (lambda: BDLRU(6.0, block_size=2), TypeError, "dim: got 6.0, expected a whole number"),
    "block size": (lambda: layer(block_size=0), ValueError, "block_size: got 0"),
    "block bool": (lambda: layer(block_size=True), TypeError, "block_size: got True"),
    "num blocks": (lambda: layer(num_blocks=-1), ValueError, "num_blocks: got -1"),
    "order": (lambda: HLRU(6, order=0), ValueError, "order: got 0"),
    "channels": (lambda: HLRU(6, order=2, num_channels=0), ValueError, "num_channels: got 0"),
    "readout": (
        lambda: HLRU(6, order=2, readout="all"),
        ValueError,
        "readout: got 'all', expected one of 'window'",
    ),
    "normalization": (
        lambda: layer(normalization="l2"),
        ValueError,
        "normalization: got 'l2', expected one of",
    ),
    "backend": (lambda: layer(backend="gpu"), ValueError, "backend: got 'gpu', expected one of 'auto'"),
    "x rank": (
        lambda: layer()(X[0]),
        ValueError,
        r"x: got shape \[4, 6\], expected \[B, T, dim\] = \[B, T, 6\]",
    ),
    "x width": (lambda: layer()(X[..., :5]), ValueError, r"x: got shape \[2, 4, 5\]"),
    "x dtype": (lambda: layer()(X.long()), TypeError, "x: got dtype torch.int64"),
    "x list": (lambda: layer()([1.0]), TypeError, "x: got list"),
    "x width of parameters": (lambda: layer()(X.double()), TypeError, "x: got dtype torch.float64, expected"),
    "state": (lambda: layer()(X, torch.zeros(3, 3, 2)), ValueError, r"initial_state: got shape \[3, 3, 2\]"),
    "hlru state": (lambda: HLRU(6, order=2)(X, torch.zeros(2, 3)), ValueError, "initial_state: got shape"),
    "bounds": (
        lambda: layer()(X, cu_seqlens=torch.tensor([0, 4])),
        ValueError,
        "cu_seqlens: got a batch of B = 2",
    ),
    "step rank": (
        lambda: layer().step(X, layer().initial_state(2)),
        ValueError,
        r"x: got shape .* \[B, dim\]",
    ),
    "step state": (lambda: layer().step(X[:, 0], 0.0), TypeError, "state: got float"),
    "batch": (lambda: layer().initial_state(-1), ValueError, "batch_size: got -1"),
    "unknown mixer": (lambda: build_mixer("mamba", 6), ValueError, "'mamba', expected one of .*'bdlru'"),
    "unknown argument": (lambda: build_mixer("bdlru", 6, order=2), ValueError, "order"),
    "missing argument": (lambda: build_mixer("bdlru", 6), ValueError, "block_size"),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    function, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        function()
