"""Where long sequences are cut in time."""

from __future__ import annotations

import pytest

from statemix.ops.triton.split import LANES, SIDE_BY_SIDE, segment_length

SIZES = (1, 2, 3, 4, 5, 8, 11, 16)


@pytest.mark.parametrize("kind", ["block", "order"])
@pytest.mark.parametrize("m", SIZES)
def test_a_long_row_fills_the_gpu(kind, m):
    steps = segment_length(kind, m, 1024, 65_536)
    assert steps == 8192
    assert 1024 * 65_536 / steps == SIDE_BY_SIDE


@pytest.mark.parametrize("kind", ["block", "order"])
@pytest.mark.parametrize("m", SIZES)
def test_full_gpus_short_sequences_and_large_m_are_not_cut(kind, m):
    assert segment_length(kind, m, LANES + 1, 1 << 20) is None
    assert segment_length(kind, m, 64, 1000) is None
    assert segment_length(kind, m, 0, 1 << 20) is None
    assert segment_length(kind, 17, 64, 1 << 20) is None


def test_where_matrices_cost_more_than_they_save_nothing_is_cut():
    assert segment_length("order", 16, 512, 2048) is None
    assert segment_length("order", 16, 2048, 2048) is None
    assert segment_length("block", 4, 512, 2048) is not None


@pytest.mark.parametrize("kind", ["block", "order"])
@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("lanes", [8, 100, 1000])
@pytest.mark.parametrize("length", [1024, 5000, 1 << 20])
def test_matrices_stay_below_five_percent_of_the_gates(kind, m, lanes, length):
    steps = segment_length(kind, m, lanes, length)
    if steps is None:
        return
    assert steps % 64 == 0
    kept = m * m + 3 * m + 1 if kind == "order" else m + 4  # of a lane: a matrix, three states, a horizon
    assert 4 * kept < 0.05 * steps * 2 * (m + 1)
