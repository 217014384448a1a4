"""Launching again without Triton's look-up: when it is done, and that it does the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from statemix import BDLRU, HLRU
from statemix.ops import affine_scan, bdlru_scan, hlru_scan
from statemix.ops.triton import launcher
from statemix.ops.triton.launcher import Launch

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Kernel:
    """Stands in for a kernel: notes the ordinary launches, and those of what it was compiled to."""

    def __init__(self, compiles=True):
        self.ordinary, self.direct, self.compiles = [], [], compiles

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.ordinary.append((grid, arguments, options))
            compiled = SimpleNamespace(run=self.run, function="function", packed_metadata="metadata")
            return compiled if self.compiles else None

        return launch

    def run(self, *arguments):
        self.direct.append(arguments)


@pytest.fixture
def machine(monkeypatch):
    """A driver whose device and backend a test may change, without hooks."""
    here = SimpleNamespace(device=0, backend="cuda")
    active = SimpleNamespace(
        get_current_device=lambda: here.device,
        get_current_stream=lambda device: 70 + device,
        get_current_target=lambda: SimpleNamespace(backend=here.backend),
    )
    here.hooks = SimpleNamespace(calls=[])
    hooks = SimpleNamespace(launch_enter_hook=here.hooks, launch_exit_hook=None)
    monkeypatch.setattr(launcher, "driver", SimpleNamespace(active=active))
    monkeypatch.setattr(launcher, "knobs", SimpleNamespace(runtime=hooks))
    monkeypatch.setattr(launcher, "KNOWN", True)
    return here


def tensors(offset=0):
    """Three tensors that begin `offset` numbers after an aligned address."""
    return [torch.zeros(16)[offset:] for _ in range(3)]


def test_the_second_launch_goes_the_short_way(machine):
    kernel = Kernel()
    launch = Launch(kernel, 5, 7, "CFG", num_warps=2)
    a, b, c = tensors()
    launch((a, b), c, None)
    assert kernel.ordinary == [((5,), ((a, b), c, None, 7, "CFG"), {"num_warps": 2})]
    launch((b, a), c, None)
    assert len(kernel.ordinary) == 1
    addresses = ((b.data_ptr(), a.data_ptr()), c.data_ptr(), None)
    assert kernel.direct == [(5, 1, 1, 70, "function", "metadata", None, None, None, *addresses, 7, "CFG")]


def test_an_address_that_16_does_not_divide_goes_the_long_way(machine):
    kernel = Kernel()
    launch = Launch(kernel, 1)
    odd, even = tensors(1), tensors()
    launch(*odd)
    launch(*odd)
    assert (len(kernel.ordinary), len(kernel.direct)) == (2, 0)  # and nothing is kept of it
    launch(*even)
    launch((even[0], odd[1]), even[2])
    assert (len(kernel.ordinary), len(kernel.direct)) == (4, 0)
    launch(*even)
    assert (len(kernel.ordinary), len(kernel.direct)) == (4, 1)


def test_every_device_has_its_own(machine):
    kernel = Kernel()
    launch = Launch(kernel, 1)
    for machine.device in (0, 1, 0, 1):
        launch(*tensors())
    assert len(kernel.ordinary) == 2
    assert [arguments[3] for arguments in kernel.direct] == [70, 71]


@pytest.mark.parametrize("reason", ["hook", "ROCm", "interpreter", "version"])
def test_what_goes_the_long_way(reason, machine, monkeypatch):
    kernel = Kernel(compiles=reason != "interpreter")
    launch = Launch(kernel, 1)
    if reason == "ROCm":
        machine.backend = "hip"
    monkeypatch.setattr(launcher, "KNOWN", reason != "version")
    launch(*tensors())
    if reason == "hook":
        machine.hooks.calls.append(print)
    for _ in range(2):
        launch(*tensors())
    assert (len(kernel.ordinary), len(kernel.direct)) == (3, 0)


def test_no_programs_are_no_launch(machine):
    kernel = Kernel()
    Launch(kernel, 0)(*tensors())
    assert not kernel.ordinary


def test_this_version_is_known():
    import triton

    assert triton.__version__.startswith(launcher.KNOWN_VERSIONS) == launcher.KNOWN


SCANS = {"bdlru": bdlru_scan, "hlru": hlru_scan, "affine": affine_scan}
LAYOUTS = ("fast", "plain", "side by side", "sliced", "expanded")


def laid_out(layout, recurrence, dtype, offset, m=4, length=33):
    """Gates and values in a layout, from `offset` numbers after an aligned address."""
    inner, columns = ((8,) if recurrence == "hlru" else (8, m)), m + (recurrence != "affine")
    width = torch.Size(inner).numel()

    def numbers(*sizes):
        count = torch.Size(sizes).numel()
        return torch.randn(count + offset, device="cuda").to(dtype)[offset:].view(sizes)

    if layout == "side by side":
        both = numbers(2, length, (columns + 1) * width)
        gates = both[..., :-width].unflatten(-1, (columns, *inner)).movedim(2, -1)
        return gates, both[..., -width:].unflatten(-1, inner)
    if layout == "expanded":
        gates = numbers(2, 1, columns, *inner).movedim(2, -1).expand(2, length, *inner, columns)
        return gates, numbers(2, length, *inner)
    if layout == "sliced":
        return numbers(2, length, *inner, 2 * columns)[..., ::2], numbers(2, length, *inner, 2)[..., 0]
    gates = numbers(2, length, columns, *inner).movedim(2, -1)
    return (gates if layout == "fast" else gates.contiguous()), numbers(2, length, *inner)


def results(recurrence, gates, values, bounds):
    """States, final state and gradients."""
    leaves = [x.detach().requires_grad_() for x in (gates, values)]
    torch.manual_seed(1)
    outputs = SCANS[recurrence](*leaves, cu_seqlens=bounds)
    return [*outputs, *torch.autograd.grad(outputs, leaves, [torch.randn_like(x) for x in outputs])]


@pytest.fixture
def direct(monkeypatch):
    """Counts what goes the short way, which nothing does while `off` is True."""
    seen, again = SimpleNamespace(count=0, off=False), Launch.again

    def spy(self, *pointers):
        done = not seen.off and again(self, *pointers)
        seen.count += done
        return done

    monkeypatch.setattr(Launch, "again", spy)
    return seen


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("recurrence", SCANS)
def test_the_short_way_gives_the_same_bits(recurrence, dtype, packed, direct):
    """Every layout, aligned and not, one after the other and again: what one call keeps never serves another."""
    bounds = torch.tensor([0, 5, 5, 33], device="cuda", dtype=torch.int32) if packed else None
    cases = [(layout, offset) for layout in LAYOUTS for offset in (0, 1, 8)]
    torch.manual_seed(0)
    inputs = [laid_out(layout, recurrence, dtype, offset) for layout, offset in cases]
    if packed:
        inputs = [(gates[:1], values[:1]) for gates, values in inputs]
    direct.off = True
    want = [results(recurrence, *tensors, bounds) for tensors in inputs]
    direct.off = False
    for _ in range(2):
        got = [results(recurrence, *tensors, bounds) for tensors in inputs]
    assert direct.count >= 2 * len(cases)  # one forward and one backward pass of each
    for have, exact, case in zip(got, want, cases, strict=True):
        for a, b in zip(have, exact, strict=True):
            assert torch.equal(a, b), case


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["bdlru", "hlru"])
def test_a_layer_on_streams_devices_and_in_a_graph(kind, direct):
    """The same numbers on every stream, and on the second device where there is one; a graph replays new inputs."""
    count = torch.cuda.device_count()
    for device in [f"cuda:{index}" for index in range(min(2, count))]:
        torch.manual_seed(0)
        layer = (
            BDLRU(64, block_size=4, device=device) if kind == "bdlru" else HLRU(64, order=4, device=device)
        )
        x = torch.randn(2, 40, 64, device=device, requires_grad=True)

        def call(x=x, layer=layer):
            outputs = layer(x)
            grads = torch.autograd.grad([out.sum() for out in outputs], [x, *layer.parameters()])
            return [
                out.detach() for out in (*outputs, *grads)
            ]  # a graph kept alive would hold on to its stream

        direct.off = True
        want = call()
        direct.off = False
        side = torch.cuda.Stream(device)
        for stream in (torch.cuda.current_stream(device), side, side):
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                got = call()
            torch.cuda.synchronize(device)
            assert all(map(torch.equal, got, want))
        with torch.cuda.device(device):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                got = call()
            with torch.no_grad():
                x.mul_(0.5)
            graph.replay()
            torch.cuda.synchronize(device)
            direct.off = True
            assert all(map(torch.equal, got, call()))
            direct.off = False
    assert direct.count


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["bdlru", "hlru"])
def test_steps_give_the_same_bits(kind, direct):
    layer = BDLRU(64, block_size=4, device="cuda") if kind == "bdlru" else HLRU(64, order=4, device="cuda")
    tokens = torch.randn(3, 2, 64, device="cuda")
    outputs = []
    for direct.off in (True, False):
        state = layer.initial_state(2)
        with torch.no_grad():
            for token in tokens:
                y, state = layer.step(token, state)
        outputs.append((y, state))
    assert all(map(torch.equal, *outputs))
    assert direct.count >= 2
