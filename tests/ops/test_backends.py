"""Which backend runs: what "auto" picks, what an explicit one refuses, and that compilation can follow."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from statemix.ops import BACKENDS, bdlru_scan, checks, cpu, explain_backend, triton
from statemix.ops.dispatch import choose_backend
from tests.ops.cases import inputs

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", True)
    monkeypatch.setattr(triton, "INSTALLED", True)
    monkeypatch.setattr(triton, "INTERPRETED", False)


@pytest.mark.parametrize(
    ("device", "dtype", "picked"),
    [
        (CPU, None, "cpu"),
        (CPU, HALF, "cpu"),
        (CPU, DOUBLE, "cpu"),
        (CUDA, None, "triton"),
        (CUDA, HALF, "triton"),
        (CUDA, torch.float16, "triton"),
        (CUDA, SINGLE, "triton"),
        (CUDA, DOUBLE, "reference"),
        (MPS, SINGLE, "reference"),
    ],
    ids=str,
)
def test_auto(device, dtype, picked):
    assert choose_backend("auto", device, dtype) == picked
    backend, why = explain_backend(device, dtype)
    assert backend == picked
    assert why
    assert choose_backend(picked, device, dtype) == picked
    assert choose_backend("reference", device, dtype) == "reference"


def test_auto_without_the_packages(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", False)
    monkeypatch.setattr(triton, "INSTALLED", False)
    backend, why = explain_backend("cpu")
    assert backend == "reference" and 'pip install "numba>=' in why
    backend, why = explain_backend("cuda")
    assert backend == "reference" and "pip install triton" in why


REFUSALS = {
    "cpu on a gpu": ("cpu", CUDA, SINGLE, r"'cpu' cannot run: .* need tensors on the CPU, got cuda:0"),
    "triton on the cpu": ("triton", CPU, SINGLE, r"'triton' cannot run: .* GPU, got cpu"),
    "triton elsewhere": ("triton", MPS, None, r"'triton' cannot run: .* GPU, got mps"),
    "triton in double": ("triton", CUDA, DOUBLE, r"'triton' cannot run: .*float16, got torch.float64"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_an_explicit_backend_that_cannot_run_says_why(case):
    backend, device, dtype, message = REFUSALS[case]
    with pytest.raises(ValueError, match="^backend: " + message):
        choose_backend(backend, device, dtype)


def test_hard_rows():
    for name, device in (("hard:softmax", CPU), ("hard:silu", CUDA)):
        assert choose_backend("auto", device, SINGLE, name) == choose_backend("auto", device, SINGLE)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(triton, "INSTALLED", False)
    with pytest.raises(
        ValueError, match=r"backend: 'triton' cannot run: .*pip install triton.*CUDA builds of torch"
    ):
        choose_backend("triton", CUDA)


def test_the_interpreter_is_used_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(triton, "INTERPRETED", True)
    assert choose_backend("triton", CPU, SINGLE) == "triton"
    assert choose_backend("auto", CPU, SINGLE) == "cpu"
    monkeypatch.setattr(cpu, "INSTALLED", False)
    assert choose_backend("auto", CPU, SINGLE) == "reference"
    with pytest.raises(ValueError, match="float64"):
        choose_backend("triton", CPU, DOUBLE)


def test_every_backend_has_the_three_functions():
    for module in BACKENDS.values():
        assert all(callable(getattr(module, name)) for name in ("unavailable", "forward", "backward"))


@pytest.mark.parametrize(("dtype", "picked"), [(SINGLE, "triton"), (DOUBLE, "reference")], ids=str)
def test_the_scan_asks_for_its_own_tensors(dtype, picked, monkeypatch):
    from statemix.ops import autograd

    seen = []
    right = autograd.scan
    monkeypatch.setattr(autograd, "scan", lambda *a: seen.append(a[-1]) or right(*a))
    with FakeTensorMode(), torch.no_grad():
        bdlru_scan(*(torch.empty(x.shape, device="cuda", dtype=dtype) for x in inputs("bdlru")[:2]))
    assert seen == [picked]


@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_compilation_follows_the_choice_for_a_gpu(backend):
    """One graph, traced with tensors of a GPU that need not be there."""
    with FakeTensorMode(), torch.no_grad():
        tensors = [torch.empty(x.shape, device="cuda") for x in inputs("bdlru")]
        torch._dynamo.reset()
        explained = torch._dynamo.explain(lambda *x: bdlru_scan(*x, backend=backend))(*tensors)
    assert explained.graph_break_count == 0
    (call,) = [node for node in explained.graphs[0].graph.nodes if "bdlru_scan" in str(node.target)]
    assert call.args[-1] == "triton"


def test_bounds_are_read_once_on_a_gpu_and_not_while_a_graph_is_captured(monkeypatch):
    from statemix.ops import triton

    bounds = torch.tensor([0, 9])
    with pytest.raises(ValueError, match="cu_seqlens: ends at 9"):
        checks.check_cu_seqlens(bounds, 1, 4)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    checks.check_cu_seqlens(bounds, 1, 4)  # left to the backend
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with pytest.raises(ValueError, match="cu_seqlens: ends at 9"):
        triton._checked_bounds(bounds, 4)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    triton._checked_bounds(bounds, 4)


def test_packages_are_loaded_only_when_their_kernels_run():
    code = (
        "import sys, torch; before = 'triton' in sys.modules; import statemix;"
        "assert 'numba' not in sys.modules, 'numba was imported';"
        "statemix.BDLRU(4, block_size=2)(torch.ones(1, 2, 4));"
        "assert ('triton' in sys.modules) == before, 'triton was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
