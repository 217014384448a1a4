"""Kernels compiled from older sources are not used: Numba looks at a kernel's own file, not at what it imports."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("numba")

from statemix.ops.cpu_kernels import _forget_outdated


@pytest.fixture
def folder(tmp_path):
    """Two sources, written at times 100 and 300, and two indices of compiled kernels."""
    (tmp_path / "__pycache__").mkdir()
    times = {"block.py": 100, "gates.py": 300, "__pycache__/a.nbi": 200, "__pycache__/b.nbi": 400}
    for name, time in {**times, "__pycache__/gates.pyc": 200}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time, time))
    return tmp_path


def test_only_older_kernels_go(folder):
    _forget_outdated(folder)
    assert sorted(path.name for path in (folder / "__pycache__").iterdir()) == ["b.nbi", "gates.pyc"]


def test_nothing_compiled_yet(tmp_path):
    (tmp_path / "block.py").touch()
    _forget_outdated(tmp_path)
