"""Where long sequences are cut in time."""

from __future__ import annotations

import pytest

from statemix.ops.triton.chunking import MAX_CHUNKED_LANES, TARGET_LANES, chunk_length

SIZES = (1, 2, 3, 4, 5, 8, 11, 16)


@pytest.mark.parametrize("kernels", ["bdlru", "hlru"])
@pytest.mark.parametrize("m", SIZES)
def test_a_long_row_fills_the_gpu(kernels, m):
    steps = chunk_length(kernels, m, 1024, 65_536)
    assert steps == 8192
    assert 1024 * 65_536 / steps == TARGET_LANES


@pytest.mark.parametrize("kernels", ["bdlru", "hlru"])
@pytest.mark.parametrize("m", SIZES)
def test_full_gpus_short_sequences_and_large_m_are_not_cut(kernels, m):
    assert chunk_length(kernels, m, MAX_CHUNKED_LANES + 1, 1 << 20) is None
    assert chunk_length(kernels, m, 64, 1000) is None
    assert chunk_length(kernels, m, 0, 1 << 20) is None
    assert chunk_length(kernels, 17, 64, 1 << 20) is None


def test_where_matrices_cost_more_than_they_save_nothing_is_cut():
    assert chunk_length("hlru", 16, 512, 2048) is None
    assert chunk_length("hlru", 16, 2048, 2048) is None
    assert chunk_length("bdlru", 4, 512, 2048) is not None


@pytest.mark.parametrize("kernels", ["bdlru", "hlru"])
@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("lanes", [8, 100, 1000])
@pytest.mark.parametrize("length", [1024, 5000, 1 << 20])
def test_matrices_stay_below_five_percent_of_the_gates(kernels, m, lanes, length):
    steps = chunk_length(kernels, m, lanes, length)
    if steps is None:
        return
    assert steps % 64 == 0
    kept = (
        m * m + 3 * m + 1 if kernels == "hlru" else m + 4
    )  # of a lane: a matrix, three states, a memory length
    assert 4 * kept < 0.05 * steps * 2 * (m + 1)
