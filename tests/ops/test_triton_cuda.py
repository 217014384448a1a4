"""The Triton backend on a GPU: every launch shipped, against float64; skipped where there is no CUDA device.

Every output is poisoned: with deterministic algorithms on, PyTorch fills uninitialised memory with NaN.
"""

from __future__ import annotations

import pytest
import torch

from statemix import BDLRU, HLRU
from statemix.ops import bdlru_scan, hlru_scan, reference
from statemix.ops.launch import default_launch
from statemix.ops.layout import in_fast_format
from tests.ops.cases import FIRST, HARD_CASES, RECURRENCES, inputs, names, relative, restride, run
from tests.ops.loops import ALL, HARD

pytestmark = pytest.mark.gpu

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BOUNDS = {torch.float32: (2e-6, 5e-6), torch.bfloat16: (4e-3, 8e-3), torch.float16: (4e-3, 8e-3)}
"""Relative RMS error allowed: of the outputs, of every gradient."""


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def on_gpu(tensors):
    gates, values, state = (x.cuda() for x in tensors)
    return in_fast_format(gates, "gates"), values, state


def outputs_and_gradients(recurrence, tensors, name="softmax", seed=0, **options):
    """States, final state and the three gradients for fixed random gradients of both outputs."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    outputs = run(recurrence, *leaves, name, **options)
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, grads)]


def exact(recurrence, tensors, name="softmax", **options):
    """The same in float64 on the CPU; float16 and bfloat16 inputs are taken as the numbers that they are."""
    tensors = [x.detach().cpu().double() for x in tensors]
    options = {key: value.cpu() if torch.is_tensor(value) else value for key, value in options.items()}
    return outputs_and_gradients(recurrence, tensors, name, backend="reference", **options)


def check(recurrence, tensors, name="softmax", **options):
    dtype = tensors[1].dtype
    got = outputs_and_gradients(recurrence, tensors, name, backend="triton", **options)
    want = exact(recurrence, tensors, name, **options)
    for k, (have, true) in enumerate(zip(got, want, strict=True)):
        assert relative(have.cpu(), true) <= BOUNDS[dtype][k > 1], f"output {k}"
    return got


def cut(monkeypatch, length):
    from statemix.ops.triton import chunking

    monkeypatch.setattr(chunking, "chunk_length", lambda *_: length)


def decide(monkeypatch, chooser):
    """Let `chooser` take all launches; in autograd's threads too."""
    monkeypatch.setattr("statemix.ops.triton.dispatch.choose", chooser)


def one_launch(direction, launch):
    """What chooses this launch in a direction, else the default."""
    return lambda key, gpu, capability: (
        launch if key.direction == direction else default_launch(key, capability)
    )


def launches():
    """Every entry of the measured table once, with an m that it is for."""
    from statemix.ops.launch import HOPPER

    for (recurrence, direction), rows in HOPPER.items():
        for m, entry in rows.items():
            for many, launch in enumerate(entry):
                name = f"{recurrence}-{direction}-{m}-{['few', 'many'][many]}"
                yield pytest.param(recurrence, direction, m, launch, id=name)


@pytest.mark.parametrize(
    ("name", "dtype"), [*(("softmax", dtype) for dtype in DTYPES), ("hard:softmax", torch.bfloat16)], ids=str
)
@pytest.mark.parametrize(("recurrence", "direction", "m", "launch"), list(launches()))
def test_every_launch_of_the_table(recurrence, direction, m, launch, name, dtype, monkeypatch):
    T = 3 * launch.block_t * launch.num_workers + 5
    tensors = inputs(recurrence, B=2, T=T, N=24, m=m, dtype=dtype, seed=m)
    decide(monkeypatch, one_launch(direction, launch))
    check(recurrence, on_gpu(tensors), name)


@pytest.mark.parametrize("m", [1, 3, 4, 8, 16])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_portable_kernels(recurrence, name, m, monkeypatch):
    """What runs on every other GPU, here: whole, packed, in chunks."""
    decide(monkeypatch, lambda *key: None)
    for dtype in (torch.float32, torch.bfloat16):
        check(recurrence, on_gpu(inputs(recurrence, B=2, T=37, N=20, m=m, dtype=dtype)), name)
    bounds = torch.tensor([0, 5, 5, 37], device="cuda")
    packed = inputs(recurrence, B=1, T=37, N=20, m=m, sequences=3, dtype=torch.float32)
    check(recurrence, on_gpu(packed), name, cu_seqlens=bounds)
    cut(monkeypatch, 64)
    check(recurrence, on_gpu(inputs(recurrence, B=1, T=150, N=20, m=m, dtype=torch.float32)), name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("recurrence", "name"),
    [
        *((r, n) for r in RECURRENCES for n in names(r)),
        *HARD_CASES,
    ],
)
def test_every_normalization(recurrence, name, dtype):
    gates, values, state = inputs(recurrence, B=3, T=45, N=40, m=3, dtype=dtype)
    if name == "none" and recurrence != "affine":
        gates = gates / 4
    check(recurrence, on_gpu((gates, values, state)), name)


@pytest.mark.parametrize("m", [*range(1, 18), 24, 32, 33, 48])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_every_m(recurrence, name, m):
    check(recurrence, on_gpu(inputs(recurrence, B=1, T=13, N=8, m=m, dtype=torch.bfloat16)), name)
    check(recurrence, on_gpu(inputs(recurrence, B=2, T=9, N=3, m=m, dtype=torch.float32)), name)


@pytest.mark.parametrize("T", [1, 2, 3, 7, 31, 64, 129])
@pytest.mark.parametrize("N", [1, 5, 16, 70])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_every_length_and_width(recurrence, N, T):
    for dtype in (torch.float32, torch.bfloat16):
        check(recurrence, on_gpu(inputs(recurrence, B=2, T=T, N=N, m=4, dtype=dtype)))


@pytest.mark.parametrize("layout", ["contiguous", "fast", "sliced", "time_outermost"])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_every_layout(recurrence, layout):
    gates, values, state = (x.cuda() for x in inputs(recurrence, T=20, N=8, m=4, dtype=torch.float32))
    check(recurrence, (restride(gates, layout), restride(values, layout), state))


def test_fused_projection_is_read_in_place():
    """Gates and values as slices of one projection, rows further apart than their numbers."""
    m, N = 4, 16
    row = torch.randn(2, 30, (m + 2) * N * m, device="cuda")
    gates = row[..., : (m + 1) * N * m].view(2, 30, m + 1, N, m).movedim(2, -1)
    values = row[..., (m + 1) * N * m :].view(2, 30, N, m)
    check("bdlru", (gates, values, torch.zeros(2, N, m, device="cuda")))
    free = torch.randn(m + 1, N, m, device="cuda").movedim(0, -1).expand(2, 30, N, m, m + 1)
    check("bdlru", (free, values, torch.zeros(2, N, m, device="cuda")))


def test_expanded_gradients():
    tensors = on_gpu(inputs("bdlru", T=20, N=8, m=4, dtype=torch.float32))
    leaves = [x.requires_grad_() for x in tensors]
    states, final = bdlru_scan(*leaves, backend="triton")
    got = torch.autograd.grad(states.sum() + final.sum(), leaves)
    doubles = [x.detach().cpu().double().requires_grad_() for x in tensors]
    states, final = reference.scan("bdlru", *doubles)
    for have, want in zip(got, torch.autograd.grad(states.sum() + final.sum(), doubles), strict=True):
        assert relative(have.cpu(), want) < 5e-6


@pytest.mark.parametrize("lengths", [[5, 0, 1, 30, 64, 0], [100], [1] * 20, [0, 0, 3]], ids=str)
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_packed(recurrence, name, lengths):
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], device="cuda")
    for m in (1, 3, 4):
        tensors = inputs(
            recurrence, B=1, T=sum(lengths), N=16, m=m, sequences=len(lengths), dtype=torch.float32
        )
        check(recurrence, on_gpu(tensors), name, cu_seqlens=bounds)
        check(recurrence, on_gpu(tensors), name, cu_seqlens=bounds.int())


@pytest.mark.parametrize("bias", [-5.0, 0.0, 4.0], ids=["keeping", "neutral", "forgetting"])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_chunks(recurrence, name, m, bias, monkeypatch):
    """Time cut into chunks, the last one shorter: gates that keep the state at a chunk's start, and that forget."""
    gates, values, state = inputs(recurrence, B=2, T=700, N=16, m=m, dtype=torch.float32)
    if recurrence == "affine":
        gates = gates * {-5.0: 1.0, 0.0: 0.9, 4.0: 0.2}[bias]
    else:
        gates[..., -1] += bias
        gates[:, 400:430, :4] -= 100.0 * (torch.arange(m + 1) == m)  # a few blocks never forget
    cut(monkeypatch, 256)
    tensors = on_gpu((gates, values, state))
    check(recurrence, tensors, name)
    for T in (256, 257, 30):
        check(recurrence, (tensors[0][:, :T], tensors[1][:, :T], tensors[2]), name)


@pytest.mark.parametrize("name", [*ALL, *HARD])
def test_chunks_of_every_normalization(name, monkeypatch):
    gates, values, state = inputs("bdlru", B=1, T=200, N=16, m=4, dtype=torch.float32)
    cut(monkeypatch, 64)
    check("bdlru", on_gpu((gates / 3, values, state)), name)


@pytest.mark.parametrize("m", [1, 4, 5, 16])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_hard_rows_copy_to_the_bit(recurrence, m, monkeypatch):
    """Where no row takes its value, every state is one of the first ones, whole and in chunks, after 20 000 steps."""
    gates, values, state = inputs(recurrence, B=1, T=20_000, N=16, m=m, dtype=torch.float32)
    gates[..., -1] = -100.0
    tensors, found = on_gpu((gates, values, state)), []
    for length in (None, 4096):
        cut(monkeypatch, length)
        found.append(run(recurrence, *tensors, "hard:softmax", backend="triton"))
    first = tensors[2].view(1, 1, 16, 1, m)
    assert (found[0][0].view(1, 20_000, 16, -1, 1) == first).any(-1).all()
    for whole, chunked in zip(*found, strict=True):
        assert torch.equal(whole, chunked)


@pytest.mark.parametrize("name", ["softmax", "hard:softmax"])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_nan_crosses_chunks_that_forget(recurrence, name, monkeypatch):
    gates, values, state = on_gpu(inputs(recurrence, B=1, T=700, N=16, m=2, dtype=torch.float32))
    gates[..., -1] += 4.0
    state[0, 3] = float("nan")
    cut(monkeypatch, 256)
    states, final = run(recurrence, gates, values, state, name, backend="triton")
    assert states[0, :, 3].isnan().all()
    assert final[0, 3].isnan().all()
    assert states[0, :, 4:].isfinite().all()


@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_carried_in_two_parts(recurrence, name):
    gates, values, state = on_gpu(inputs(recurrence, B=2, T=50, N=16, m=4, dtype=torch.bfloat16))
    whole, last = run(recurrence, gates, values, state, name, backend="triton")
    first, carried = run(recurrence, gates[:, :23], values[:, :23], state, name, backend="triton")
    second, final = run(recurrence, gates[:, 23:], values[:, 23:], carried, name, backend="triton")
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert torch.equal(final, last)


@pytest.mark.parametrize("m", [1, 4, 5, 16])
@pytest.mark.parametrize(("recurrence", "name"), FIRST)
def test_same_bits_twice_and_with_other_neighbours(recurrence, name, m):
    tensors = on_gpu(inputs(recurrence, B=5, T=70, N=16, m=m, dtype=torch.bfloat16))
    first, second = (outputs_and_gradients(recurrence, tensors, name, backend="triton") for _ in range(2))
    other = [torch.cat([x[:2], torch.randn_like(x[2:]) / 8]) for x in tensors]
    grads = [torch.ones_like(x) for x in first[:2]]

    def gradients(tensors):
        leaves = [x.detach().requires_grad_() for x in tensors]
        outputs = run(recurrence, *leaves, name, backend="triton")
        mine = [grad[: len(out)] for grad, out in zip(grads, outputs, strict=True)]
        return [*outputs, *torch.autograd.grad(outputs, leaves, mine)]

    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    together, alone = gradients(tensors), gradients([x[:2] for x in tensors])
    for mine, with_others, without in zip(together, gradients(other), alone, strict=True):
        assert torch.equal(mine[:2], with_others[:2])
        assert torch.equal(mine[:2], without)


@pytest.mark.parametrize("m", [2, 16])
@pytest.mark.parametrize("recurrence", ["bdlru", "hlru"])
def test_a_million_steps(recurrence, m):
    """Against the compiled CPU kernels in float64."""
    pytest.importorskip("numba")
    tensors = inputs(recurrence, B=1, T=1_048_576, N=16 // m, m=m, dtype=torch.float32)
    got = outputs_and_gradients(recurrence, on_gpu(tensors), backend="triton")
    want = outputs_and_gradients(recurrence, [x.double() for x in tensors], backend="cpu")
    for k, (have, true) in enumerate(zip(got, want, strict=True)):
        assert relative(have.cpu(), true) <= BOUNDS[torch.float32][k > 1]


def test_more_than_two_to_the_31_gates():
    """The last rows of a tensor of 2.7e9 gates: as if they were alone, forward and backward."""
    B, T, N, m = 8, 65_536, 256, 4
    if torch.cuda.get_device_properties(0).total_memory < 30e9:
        pytest.skip("needs 30 GB")
    torch.use_deterministic_algorithms(False)
    gates = (
        torch.randn(B, T, m + 1, N, m, device="cuda", dtype=torch.bfloat16).movedim(2, -1).requires_grad_()
    )
    values = torch.randn(B, T, N, m, device="cuda", dtype=torch.bfloat16).requires_grad_()
    assert gates.numel() > 2**31
    states, _ = bdlru_scan(gates, values, backend="triton")
    grad = torch.randn_like(states)
    d_gates, d_values = torch.autograd.grad(states, (gates, values), grad)
    few = slice(B - 1, B), slice(T - 200, T), slice(N - 16, N)
    before = states[B - 1 :, T - 201, N - 16 :].float()
    part = [gates.detach()[few], values.detach()[few], before]
    leaves = [x.cpu().double().requires_grad_() for x in part]
    want, _ = reference.scan("bdlru", *leaves)
    wanted = torch.autograd.grad(want, leaves[:2], grad[few].cpu().double())
    assert relative(states[few][:, 100:].cpu(), want[:, 100:]) < 4e-3
    assert relative(d_gates[few][:, 100:].cpu(), wanted[0][:, 100:]) < 8e-3
    assert relative(d_values[few][:, 100:].cpu(), wanted[1][:, 100:]) < 8e-3


@pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_cuda_graph(recurrence, packed):
    bounds = torch.tensor([0, 10, 10, 33], device="cuda") if packed else None
    sizes = {"B": 1, "sequences": 3} if packed else {"B": 2}
    tensors = on_gpu(inputs(recurrence, T=33, N=16, m=4, dtype=torch.float32, **sizes))

    def call():
        leaves = [x.detach().requires_grad_() for x in tensors]
        outputs = run(recurrence, *leaves, cu_seqlens=bounds, backend="triton")
        return [*outputs, *torch.autograd.grad(outputs, leaves, [torch.ones_like(x) for x in outputs])]

    want = [x.clone() for x in call()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    torch.use_deterministic_algorithms(False)
    with torch.cuda.graph(graph):
        got = call()
    graph.replay()
    for have, true in zip(got, want, strict=True):
        assert torch.equal(have, true)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("layer", [BDLRU(32, block_size=4), HLRU(32, order=4)], ids=["bdlru", "hlru"])
def test_compiled_layer_has_no_graph_break(layer):
    layer = layer.cuda()
    x = torch.randn(2, 40, 32, device="cuda")
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(False)
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    compiled(x)[0].sum().backward()
    got = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x)[0].sum().backward()
    for have, parameter in zip(got, layer.parameters(), strict=True):
        torch.testing.assert_close(have, parameter.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "layer", [BDLRU(32, block_size=4), HLRU(32, order=4), BDLRU(30, block_size=3)], ids=str
)
def test_layer_step_is_forward(layer):
    layer = layer.cuda()
    x = torch.randn(3, 9, layer.dim, device="cuda")
    want, last = layer(x)
    state = layer.initial_state(3)
    for t in range(9):
        y, state = layer.step(x[:, t], state)
        torch.testing.assert_close(y, want[:, t], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


def test_autocast():
    layer = BDLRU(64, block_size=4).cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        y, state = layer(torch.randn(2, 50, 64, device="cuda"))
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    y.float().sum().backward()
    assert torch.isfinite(layer.gates.weight.grad).all()


@pytest.mark.parametrize("name", [*ALL, "hard:softmax", "hard:silu"])
def test_nan_stays_nan_and_in_its_block(name):
    gates, values, state = on_gpu(inputs("bdlru", B=2, T=30, N=16, m=4, dtype=torch.float32))
    values[0, 10, 3, 0] = float("nan")
    gates[1, 20, 5] = float("nan")
    states, final = run("bdlru", gates / 4, values, state, name, backend="triton")
    assert states[0, 10:, 3, 0].isnan().all()
    assert states[1, 20:, 5].isnan().all()
    assert final[1, 5].isnan().all()
    states[0, 10:, 3], states[1, 20:, 5] = 0, 0
    assert states.isfinite().all()


def test_large_gates_do_not_overflow():
    for name in ("softmax", "sigmoid", "tanh", "silu", "hard:softmax", "hard:silu"):
        for factor in (1e3, -1e3):
            gates, values, state = on_gpu(inputs("bdlru", T=20, N=16, m=4, dtype=torch.float32))
            got = outputs_and_gradients("bdlru", (gates * factor, values, state), name, backend="triton")
            assert all(torch.isfinite(x).all() for x in got), (name, factor)


def test_what_cannot_run_says_so():
    gates, values, _ = (x.cuda() for x in inputs("hlru", dtype=torch.float64))
    with pytest.raises(ValueError, match=r"backend: 'triton' cannot run: .*float64"):
        hlru_scan(gates, values, backend="triton")
    assert (
        hlru_scan(gates, values)[0].dtype == torch.float64
    )  # "auto" takes the loop, as `statemix doctor` says
    bounds = torch.tensor([0, 5, 3, 7], device="cuda")
    one = [x[:1].float() for x in (gates, values)]
    with pytest.raises(ValueError, match="cu_seqlens: decreases"):
        hlru_scan(*one, cu_seqlens=bounds, backend="triton")
