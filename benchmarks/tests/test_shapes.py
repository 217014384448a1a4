"""What is measured: how it is written, and the bytes it must move, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks import decode, scan_passes
from benchmarks.shapes import ScanShape, check_positive, parse_numbers, parse_shapes, parse_sizes

UNIT = 8 * 2048 * 1024
"""B·T·H of the first shape of the table: values of a whole sequence batch."""


@pytest.mark.parametrize(
    ("shape", "forward", "backward"),
    [
        (ScanShape("bdlru", 1, 8, 2048, 1024), 2 * UNIT * 4, 2 * UNIT * 8),
        (ScanShape("bdlru", 4, 8, 2048, 256), 2 * UNIT * 7, 2 * UNIT * 14),
        (ScanShape("bdlru", 16, 8, 2048, 64), 2 * UNIT * 19, 2 * UNIT * 38),
        (ScanShape("hlru", 4, 8, 2048, 1024), 2 * UNIT * 7, 2 * UNIT * 14),
        (ScanShape("hlru", 8, 8, 2048, 128), 2 * UNIT * 11 // 8, 2 * UNIT * 22 // 8),
        (ScanShape("affine", 2, 8, 2048, 512), 2 * UNIT * 4, 2 * UNIT * 7),
    ],
    ids=str,
)
def test_bytes(shape, forward, backward):
    least = shape.bytes(2)
    assert (least["forward"], least["backward"], least["both"]) == (forward, backward, forward + backward)
    assert shape.bytes(4)["forward"] == 2 * forward


def test_shapes():
    shapes = parse_shapes("bdlru:3, hlru:4:1024,affine:2", parse_sizes("8x2048x1024,1x65536x512"))
    assert shapes[:3] == [
        ScanShape("bdlru", 3, 8, 2048, 341), ScanShape("hlru", 4, 8, 2048, 1024), ScanShape("affine", 2, 8, 2048, 512)
    ]  # fmt: skip
    assert shapes[3] == ScanShape("bdlru", 3, 1, 65536, 170)


def test_the_default_covers_the_table():
    measured = {(c.recurrence, c.m, c.batch, c.length) for c in scan_passes.default_shapes()}
    for shape in ((8, 2048), (32, 2048), (1, 65536)):
        assert {("bdlru", m, *shape) for m in (1, 2, 4, 8, 16)} <= measured
        assert {("hlru", m, *shape) for m in (4, 8, 16)} <= measured
    assert {("bdlru", m, 8, 2048) for m in (3, 5)} <= measured


@pytest.mark.parametrize(
    "text", ["", "bdlru", "bdlru:0", "lstm:2", "bdlru:x", "bdlru:4:2:1", "bdlru:4:0", "bdlru:64"]
)
def test_bad_shapes(text):
    with pytest.raises(ValueError, match="shapes: got"):
        parse_shapes(text, [(1, 2, 32)])


@pytest.mark.parametrize("text", ["", "8x2048", "8x2048x", "8x0x3", "axbxc"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="sizes: got"):
        parse_sizes(text)


def test_layers_and_positions():
    assert decode.parse_layers("bdlru:4, lstm:1") == [decode.Layer("bdlru", 4), decode.Layer("lstm", 1)]
    assert decode.parse_layers("none") == []
    assert parse_numbers("positions", "1000, 1") == [1000, 1]
    for text in ("gru:1", "bdlru:0", "bdlru"):
        with pytest.raises(ValueError, match="layers: got"):
            decode.parse_layers(text)
    for text in ("", "0", "1,x"):
        with pytest.raises(ValueError, match="positions: got"):
            parse_numbers("positions", text)


def test_blocks_for_all_shapes():
    assert parse_shapes("bdlru:4,hlru:2:7", [(32, 256, 0)], 32) == [
        ScanShape("bdlru", 4, 32, 256, 32), ScanShape("hlru", 2, 32, 256, 7)
    ]  # fmt: skip


def test_sizes_are_positive():
    check_positive(batch=1, length=None)
    with pytest.raises(ValueError, match="length: got 0, expected at least 1"):
        check_positive(batch=1, length=0)
