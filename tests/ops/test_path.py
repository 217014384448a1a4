"""The path of a gate tensor from a layer to a kernel: few files, one way down."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import torch

import statemix
from statemix import BDLRU, HLRU
from statemix.ops import cpu, projection, reference, triton

PACKAGE = Path(statemix.__file__).parent
LAYERS = {"bdlru": lambda **k: BDLRU(8, block_size=4, **k), "hlru": lambda **k: HLRU(8, order=2, **k)}

ABOVE_BACKENDS = ["nn/layer.py", "ops/projection.py", "ops/scan.py", "ops/autograd.py", "ops/dispatch.py"]
ORDER = [
    "registration", "projection", "scan", "autograd", "tangent", "dispatch", "cpu", "triton", "launch", "reference",
    "lagged", "checks", "normalization", "layout", "zeros", "_torch_compat",
]  # fmt: skip
"""Each module of `statemix.ops` imports only what comes after it."""


def files_below(frame):
    """The files of statemix on the stack of a frame, the outermost first, each as often as the way leads into it."""
    files = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if PACKAGE in path.parents and (not files or files[-1] != path):
            files.append(path)
        frame = frame.f_back
    return [path.relative_to(PACKAGE).as_posix() for path in reversed(files)]


@pytest.fixture
def stacks(monkeypatch):
    """The stacks of all calls of CPU kernels and of the Triton backend, which runs the loop here."""
    seen = []

    def spying(function):
        return lambda *arguments: (seen.append(files_below(sys._getframe(1))), function(*arguments))[1]

    monkeypatch.setattr(cpu, "_call", spying(cpu._call))
    monkeypatch.setattr(triton, "forward", spying(reference.forward))
    monkeypatch.setattr(triton, "INTERPRETED", True)
    monkeypatch.setattr(triton, "INSTALLED", True)
    return seen


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("length", [4, 4000], ids=["one thread", "threads"])
@pytest.mark.parametrize("kind", LAYERS)
def test_to_a_cpu_kernel(kind, length, grad, stacks):
    pytest.importorskip("numba")
    layer = LAYERS[kind]()
    with torch.set_grad_enabled(grad):
        layer(torch.randn(2, length, 8))
    for files in stacks:
        way = [*ABOVE_BACKENDS, "ops/cpu/__init__.py"]
        assert files in (way, [*way, "ops/cpu/workers.py"], [])  # []: on a thread of its own
        assert len(files) + 1 <= 9  # the kernel's own


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_to_the_triton_backend(kind, fused, stacks, monkeypatch):
    """Five files, and four of ops/triton to the launch."""
    monkeypatch.setattr(projection, "n_innermost", lambda _: not fused)
    LAYERS[kind](backend="triton")(torch.randn(2, 4, 8))
    way = ABOVE_BACKENDS
    if (
        fused
    ):  # the autograd function of the projection calls the backend itself, which splits gates and values
        way = ["nn/layer.py", "ops/projection.py", "ops/dispatch.py", "ops/triton/__init__.py"]
    assert stacks == [way]
    assert len(ABOVE_BACKENDS) + 4 <= 9


def imported(path):
    """Modules of `statemix` that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("statemix"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("statemix"))


def test_nothing_lower_imports_what_is_higher():
    places = {name: place for place, name in enumerate(ORDER)}
    found = {path.stem for path in (PACKAGE / "ops").glob("*.py")} - {"__init__"}
    assert found <= set(ORDER)
    for path in (PACKAGE / "ops").rglob("*.py"):
        parts = path.relative_to(PACKAGE / "ops").with_suffix("").parts
        if parts[0] not in places:
            continue
        for module in imported(path):
            _, package, *rest = module.split(".")
            assert package in ("ops", "extras"), (path, module)
            other = rest[0] if rest else None
            if package == "ops" and other != parts[0]:
                assert places[other] > places[parts[0]], (path, module)


def test_layers_know_no_backend():
    for path in (PACKAGE / "nn").glob("*.py"):
        assert "triton" not in path.read_text("utf-8"), path
