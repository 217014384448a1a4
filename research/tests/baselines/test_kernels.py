"""Which way an operation with a kernel runs: kernel, chunks, loop or none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from statemix_research.baselines import chunked, kernels, verify
from statemix_research.baselines.kernels import (
    CHUNKED,
    KERNEL,
    LOOP,
    explain,
    installed_triton,
    run_operation,
)
from statemix_research.baselines.verify import check, implementation

from research.tests.baselines.small import inputs, small

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CASE = next(case for case in verify.COMPARISONS if case.baseline == "mamba2")


IN_CHUNKS = ("mamba2", "gated_deltaproduct", "rwkv7")
"""One of each recurrence; DeltaNet's is that of the product with one factor."""


@pytest.mark.parametrize(
    "name", [IN_CHUNKS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in IN_CHUNKS[1:])]
)
def test_chunks_compile_without_a_break(name):
    """With the compiler's decompositions: without them softplus has other strides in the trace than in the run."""
    layer, x = small(name), inputs(2, 70, 8)
    want = layer(x)
    torch._dynamo.reset()
    got = torch.compile(layer, fullgraph=True, backend="aot_eager_decomp_partition")(x)
    torch.testing.assert_close(got, want)
    gradients = (torch.autograd.grad(y.square().sum(), (x, *layer.parameters())) for y, _ in (got, want))
    torch.testing.assert_close(*gradients)


@GPU
@pytest.mark.filterwarnings("ignore")  # compilers warn of their own affairs
@pytest.mark.parametrize("name", IN_CHUNKS)
@pytest.mark.parametrize("compiled", [False, True])
def test_chunks_replay_as_a_cuda_graph(monkeypatch, compiled, name):
    monkeypatch.setattr(kernels, "INSTALLED", False)
    layer = small(name).float().cuda()
    x = inputs(2, 70, 8).detach().float().cuda()
    torch._dynamo.reset()
    run = torch.compile(layer, fullgraph=True, dynamic=False) if compiled else layer

    def step():
        return torch.autograd.grad(run(x)[0].square().sum(), list(layer.parameters()))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        want = [gradient.clone() for gradient in step()]
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    graph.replay()
    torch.testing.assert_close(tuple(got), tuple(want), rtol=1e-4, atol=1e-4)


@GPU
def test_the_choice_on_a_gpu_compiles(monkeypatch):
    monkeypatch.setattr(kernels, "INSTALLED", True)
    monkeypatch.setattr(kernels, "TRITON", (3, 6, 0))
    if explain("simple_gla", "auto", CUDA, 70)[0] != CHUNKED:
        pytest.skip("not a Hopper GPU")
    layer, x = small("mamba2").float().cuda(), inputs(2, 70, 8).detach().float().cuda()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.fixture
def machine(monkeypatch):
    """A machine as one likes: whether fla and tilelang are installed, Triton's version, the compute capability."""

    def build(fla=True, triton=(3, 6, 0), major=9, hip=None, tilelang=False):
        monkeypatch.setattr(kernels, "INSTALLED", fla)
        monkeypatch.setattr(kernels, "TILELANG", tilelang)
        monkeypatch.setattr(kernels, "TRITON", triton)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))

    return build


MISSING, REFUSED, NO_GPU = "is not installed", "on Hopper GPUs with Triton 3.6.0", "has no kernels for cpu"
HERE = {}
OLDER, NEWER = {"triton": (3, 3, 1)}, {"triton": (3, 7, 1)}
WAYS = [
    ("simple_gla", "auto", CUDA, 9, HERE, CHUNKED, REFUSED),
    ("simple_gla", "auto", CUDA, 1, HERE, LOOP, None),
    ("simple_gla", "loop", CUDA, 9, HERE, LOOP, None),
    ("simple_gla", "chunks", CUDA, 9, NEWER, CHUNKED, None),
    ("rwkv7", "chunks", CPU, 1, HERE, CHUNKED, None),
    ("simple_gla", "kernel", CUDA, 9, HERE, "", REFUSED),
    ("simple_gla", "auto", CUDA, 9, {"triton": (3, 4)}, CHUNKED, "Triton 3.4,"),
    ("simple_gla", "auto", CUDA, 9, {"triton": (3, 7, 0)}, CHUNKED, "Triton 3.7.0,"),
    ("simple_gla", "auto", CUDA, 9, OLDER, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, NEWER, KERNEL, None),
    ("simple_gla", "kernel", CUDA, 1, NEWER, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, {"triton": ()}, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, {"major": 8}, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, {"major": 10}, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, {"hip": "7.0"}, KERNEL, None),
    ("simple_gla", "auto", CUDA, 9, {"fla": False}, CHUNKED, MISSING),
    ("simple_gla", "kernel", CUDA, 9, {"fla": False}, "", MISSING),
    ("simple_gla", "auto", CPU, 9, HERE, CHUNKED, NO_GPU),
    ("simple_gla", "auto", CPU, 1, HERE, LOOP, None),
    ("simple_gla", "kernel", CPU, 9, HERE, "", NO_GPU),
    ("simple_gla", "auto", CUDA, 9, {"tilelang": True}, CHUNKED, "Triton 3.7.1 or newer is needed"),
    *(
        row
        for name in ("gated_delta_rule", "gated_delta_product")
        for row in (
            (name, "auto", CUDA, 9, HERE, CHUNKED, "Triton 3.7.1 or newer, or tilelang, is needed"),
            (name, "auto", CUDA, 9, {"tilelang": True}, KERNEL, None),
            (name, "auto", CUDA, 9, NEWER, KERNEL, None),
            (name, "kernel", CUDA, 9, HERE, "", REFUSED),
        )
    ),
    ("delta_rule", "auto", CUDA, 9, HERE, KERNEL, None),
    ("delta_rule", "auto", CUDA, 9, {"fla": False}, CHUNKED, MISSING),
    ("delta_rule", "auto", CPU, 9, HERE, CHUNKED, NO_GPU),
    ("rwkv7", "auto", CUDA, 9, HERE, KERNEL, None),
    ("rwkv7", "auto", CUDA, 1, HERE, LOOP, None),
    ("rwkv7", "auto", CUDA, 9, {"fla": False}, CHUNKED, MISSING),
    ("rwkv7", "auto", CPU, 9, {"fla": False}, CHUNKED, MISSING),
    ("rwkv7", "auto", CPU, 9, HERE, CHUNKED, NO_GPU),
    ("rwkv7", "kernel", CUDA, 9, {"fla": False}, "", MISSING),
]


@pytest.mark.parametrize(("name", "backend", "device", "steps", "facts", "runs", "why"), WAYS)
def test_which_way_runs(machine, name, backend, device, steps, facts, runs, why):
    machine(**facts)
    found, reason = explain(name, backend, device, steps)
    assert found == runs
    assert reason is None if why is None else why in reason


def test_single_precision_where_a_kernel_has_none(machine):
    """ "auto" takes chunks; an explicit kernel is refused."""
    machine(**NEWER)
    words = "its kernel takes bfloat16 and not torch.float32"
    for backend, runs in (("auto", CHUNKED), ("kernel", "")):
        found, reason = explain("delta_rule", backend, CUDA, 9, torch.float32)
        assert found == runs
        assert words in reason
    assert explain("simple_gla", "auto", CUDA, 9, torch.float32) == (KERNEL, None)


@pytest.mark.parametrize(
    ("name", "backend", "facts", "why"),
    [
        ("simple_gla", "kernel", {}, "got 'kernel' on cuda: .* refuses .* on Hopper GPUs with Triton 3.6.0"),
        ("rwkv7", "kernel", {"fla": False}, "got 'kernel' on cuda: flash-linear-attention is not installed"),
    ],
)
def test_what_cannot_run_is_refused(machine, name, backend, facts, why):
    machine(**facts)
    with pytest.raises(ValueError, match=f"backend: {why}"):
        run_operation(name, backend, SimpleNamespace(device=CUDA), {"v": torch.empty(1, 3, 1, 1)})


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("3.6.0", (3, 6, 0)), ("3.4.0+git12ab", (3, 4, 0)), ("3.7.1rc1", (3, 7, 1)),
        ("3.7", (3, 7)), ("unknown", ()), (None, ()),
    ],
)  # fmt: skip
def test_versions_of_triton_are_numbers(monkeypatch, version, numbers):
    def look_up(package):
        if version is None or package == "triton":
            raise kernels.importlib.metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(kernels.importlib.metadata, "version", look_up)
    assert installed_triton() == numbers


def test_what_runs_is_what_is_compared(machine, monkeypatch):
    machine(fla=False)
    half = CASE._replace(precision={"cpu": verify.HALF["cuda"]})
    found = check(half, CPU)
    assert found.passed and (found.runs, found.dtype, found.bound) == (CHUNKED, "float32", 1e-4)
    assert "is not installed" in found.reason
    machine()
    assert implementation(CASE, CUDA)[0] == CHUNKED
    operation = kernels.OPERATIONS["simple_gla"]
    wrong = operation._replace(chunked=lambda q, **rest: chunked.simple_gla(q=2 * q - q.detach(), **rest))
    monkeypatch.setitem(kernels.OPERATIONS, "simple_gla", wrong)
    found = check(CASE, CPU)
    assert found.passed is False and found.output_error < found.bound < found.gradient_errors["q"]
