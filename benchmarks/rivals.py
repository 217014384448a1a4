"""Other people's scans, measured in the same run where they are installed.

A rival is data: what it is, beside which of our cases it stands, how it is run, and, where it computes the same thing
as our scan, how it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.clock import free, set_count, time_calls
from benchmarks.contestants import associative
from benchmarks.cuda import Call
from benchmarks.exact import corner, exact, relative_rms
from benchmarks.packages import (
    ACCELERATED_SCAN,
    FLA,
    TORCH,
    Package,
    missing,
    reason,
    short_tuning,
    version,
)

BOUND = 5e-2
"""A rival whose root-mean-square error against float64 is above this is wrong (normalised gates rounded to bfloat16
are within it)."""

BUDGET = 4.0
"""Seconds that the samples of one pass of a rival may take."""


class Run(NamedTuple):
    """One set of a rival's inputs: the calls that are timed, and the bytes of what they read and write at least."""

    forward: Call
    both: Call
    bytes: int


class Rival(NamedTuple):
    """A scan of others, measured beside our BD-LRU of block size m.

    `prepare` gives its run on inputs in the layout it likes. `states` maps raw gates and values [B, T, N, m, m+1] and
    [B, T, N, m] to the states that ours would give, for the check; None where it computes something else. `grads`
    maps raw gates, values and the states' gradient to [states, d_gates, d_values]; without it autograd does.
    `passes` is what is timed.
    """

    description: str
    package: Package
    m: int
    dtype: torch.dtype
    needs_gpu: bool
    prepare: Callable[[Case, torch.device, torch.dtype], Run]
    states: Callable[[Tensor, Tensor], Tensor] | None = None
    grads: Callable[[Tensor, Tensor, Tensor], Sequence[Tensor]] | None = None
    passes: tuple[str, ...] = ("forward", "both")


def pairs_forward(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The authors' algorithm: softmax, then an associative scan over pairs (A, b): (weights, states)."""
    weights = torch.softmax(gates, dim=-1)  # [B, T, N, m, m+1]
    return weights, associative(weights[..., :-1], weights[..., -1] * values)


def pairs_both(gates: Tensor, values: Tensor, grad: Tensor) -> list[Tensor]:
    """The same with its adjoint written by hand, a second scan in the other direction: [states, d_gates, d_values]."""
    weights, states = pairs_forward(gates, values)
    transitions, inputs = weights[..., :-1], weights[..., -1]
    after = torch.cat([transitions[:, 1:], torch.zeros_like(transitions[:, :1])], dim=1).transpose(-1, -2)
    adjoint = associative(after.flip(1), grad.flip(1)).flip(1)  # l_t = dh_t + A_{t+1}^T l_{t+1}
    before = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    d_weights = torch.cat(
        [adjoint.unsqueeze(-1) * before.unsqueeze(-2), (adjoint * values).unsqueeze(-1)], dim=-1
    )
    d_gates = weights * (d_weights - (weights * d_weights).sum(-1, keepdim=True))
    return [states, d_gates, inputs * adjoint]


def _prepare_pairs(compiled: bool) -> Callable[[Case, torch.device, torch.dtype], Run]:
    def prepare(case: Case, device: torch.device, dtype: torch.dtype) -> Run:
        gates, values, grad = _raw(case, device, dtype)
        forward = _compiled(pairs_forward) if compiled else pairs_forward
        both = _compiled(pairs_both) if compiled else pairs_both
        return Run(
            lambda: forward(gates, values), lambda: both(gates, values, grad), 2 * _bytes(gates, values)
        )

    return prepare


_COMPILED: dict[Any, Any] = {}


def _compiled(function: Any) -> Any:
    if function not in _COMPILED:
        _COMPILED[function] = torch.compile(function, dynamic=False)
    return _COMPILED[function]


def _raw(case: Case, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    gates, values = case.shapes()
    return tuple(torch.randn(shape, device=device, dtype=dtype) for shape in (gates, values, values))  # type: ignore[return-value]


def _bytes(*tensors: Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _differentiable(scan: Callable[..., Tensor], *inputs: Tensor) -> Run:
    """Runs of a scan that autograd knows: forward alone, and with the gradients of all inputs."""
    leaves = tuple(x.detach().requires_grad_() for x in inputs)
    with torch.no_grad():
        grad = torch.randn_like(scan(*inputs))

    def forward() -> Tensor:
        with torch.no_grad():
            return scan(*inputs)

    def both() -> tuple[Tensor, ...]:
        states = scan(*leaves)
        return states, *torch.autograd.grad(states, leaves, grad)

    return Run(forward, both, 2 * _bytes(*inputs))


def _diagonal(gates: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Raw gates [B, T, N, 1, 2] and values [B, T, N, 1] to a and b of h_t = a h_{t-1} + b, [B, T, N]."""
    weights = torch.softmax(gates, dim=-1)[..., 0, :]
    return weights[..., 0], weights[..., 1] * values[..., 0]


def _warp_scan(a: Tensor, b: Tensor) -> Tensor:
    from accelerated_scan.warp import scan

    return scan(a, b)


def _warp(case: Case, device: torch.device, dtype: torch.dtype) -> Run:
    shape = (case.batch, case.width, case.length)  # time innermost
    a = torch.rand(shape, device=device).to(dtype)
    return _differentiable(_warp_scan, a, torch.randn_like(a))


def _warp_states(gates: Tensor, values: Tensor) -> Tensor:
    a, b = (x.transpose(1, 2).contiguous() for x in _diagonal(gates, values))
    return _warp_scan(a, b).transpose(1, 2).unsqueeze(-1)


def _hgrn_scan(x: Tensor, log_gates: Tensor) -> Tensor:
    from fla.ops.hgrn import chunk_hgrn

    return chunk_hgrn(x, log_gates)[0]


def _hgrn(case: Case, device: torch.device, dtype: torch.dtype) -> Run:
    x = torch.randn(case.batch, case.length, case.width, device=device, dtype=dtype)
    return _differentiable(_hgrn_scan, x, torch.nn.functional.logsigmoid(torch.randn_like(x)))


def _hgrn_states(gates: Tensor, values: Tensor) -> Tensor:
    log_gates = torch.log_softmax(gates, dim=-1)[..., 0, 0]
    return _hgrn_scan(_diagonal(gates, values)[1].contiguous(), log_gates.contiguous()).unsqueeze(-1)


def _lstm(case: Case, device: torch.device, dtype: torch.dtype) -> Run:
    layer = torch.nn.LSTM(case.width, case.width, batch_first=True, device=device, dtype=dtype)
    x = torch.randn(case.batch, case.length, case.width, device=device, dtype=dtype, requires_grad=True)
    grad = torch.randn_like(x)

    def forward() -> Tensor:
        with torch.no_grad():
            return layer(x)[0]

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(layer(x)[0], (x, *layer.parameters()), grad)

    return Run(forward, both, 2 * _bytes(x))


RIVALS: dict[str, Rival] = {
    "associative_scan": Rival(
        "the authors' algorithm: softmax, torch's associative scan over pairs (A, b), adjoint by hand",
        TORCH, 4, torch.float32, False, _prepare_pairs(False), grads=pairs_both,
    ),
    "accelerated_scan": Rival(
        "accelerated_scan.warp: scalar gates as they are, no softmax, time innermost",
        ACCELERATED_SCAN, 1, torch.bfloat16, True, _warp, _warp_states,
    ),
    "chunk_hgrn": Rival(
        "fla's chunk_hgrn: logarithms of scalar gates, no softmax",
        FLA, 1, torch.bfloat16, True, _hgrn, _hgrn_states,
    ),
    "lstm": Rival(
        "torch.nn.LSTM (cuDNN on a GPU), as wide as our state, its matrix products included: another recurrence",
        TORCH, 1, torch.bfloat16, False, _lstm,
    ),
    "associative_scan_compiled": Rival(
        "the same under torch.compile",
        TORCH, 4, torch.float32, True, _prepare_pairs(True), grads=lambda *x: _compiled(pairs_both)(*x),
        passes=("both",),
    ),
}  # fmt: skip


def choose(text: str) -> list[str]:
    """ "all", "none" or comma-separated names -> names; ValueError for an unknown one."""
    names = {"all": list(RIVALS), "none": []}.get(text, text.split(","))
    for name in names:
        if name not in RIVALS:
            raise ValueError(f"rivals: got {name!r}, expected all, none or some of {','.join(RIVALS)}")
    return names


def check(rival: Rival, case: Case, device: torch.device) -> float | None:
    """The largest root-mean-square error of states and gradients on the case's corners; RuntimeError if wrong."""
    if rival.states is None and rival.grads is None:
        return None
    gates, values, grad = _raw(case, device, rival.dtype)
    if rival.grads is not None:
        got = rival.grads(gates, values, grad)
    else:
        assert rival.states is not None
        leaves = (gates.requires_grad_(), values.requires_grad_())
        states = rival.states(*leaves)
        got = (states.detach(), *torch.autograd.grad(states, leaves, grad))
    want = exact("bdlru", *(corner(x.detach()) for x in (gates, values, grad)))
    error = max(relative_rms(corner(g), w) for g, w in zip(got, want, strict=True))
    if not error <= BOUND:
        raise RuntimeError(f"wrong: error {error:.1e} against float64")
    return error


def measure(rival: Rival, case: Case, device: torch.device, repeats: int) -> dict[str, Any]:
    """Check a rival, then time it at a case, launch by launch (its kernels may not bear to be captured)."""
    error = check(rival, case, device)
    free(device)
    first = rival.prepare(case, device, rival.dtype)
    runs = [first] + [
        rival.prepare(case, device, rival.dtype) for _ in range(set_count(device, first.bytes) - 1)
    ]
    row: dict[str, Any] = {"error": error, "sets": len(runs)}
    for name in rival.passes:
        calls = [getattr(run, name) for run in runs]
        row[name] = time_calls(calls, repeats, device, graph=False, budget=BUDGET)
    return row


def run(
    names: Sequence[str], rows: Sequence[dict[str, Any]], device: torch.device, repeats: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rival beside the first of our measured cases with its block size, or why it was left out."""
    for name in names:
        rival = RIVALS[name]
        ours = next(
            (r for r in rows if r["recurrence"] == "bdlru" and r["m"] == rival.m and "both" in r), None
        )
        entry = {
            "description": rival.description,
            "package": f"{rival.package.distribution} {version(rival.package)}",
            "dtype": str(rival.dtype).removeprefix("torch."),
        }
        yield name, entry | _attempt(rival, ours, device, repeats)
        free(device)


def _attempt(rival: Rival, ours: dict[str, Any] | None, device: torch.device, repeats: int) -> dict[str, Any]:
    left_out = missing(rival.package)
    if left_out is None and rival.needs_gpu and device.type != "cuda":
        left_out = "needs a CUDA device"
    if left_out is None and ours is None:
        left_out = f"no case bdlru:{rival.m} was measured"
    if left_out is not None or ours is None:
        return {"left_out": left_out}
    case = Case(*(ours[field] for field in Case._fields))
    try:
        with short_tuning():
            row = measure(rival, case, device, repeats)
    except Exception as error:  # whatever others' code does must not end the bench
        return {"case": case._asdict(), "failed": reason(error)}
    return {
        "case": case._asdict(),
        **row,
        "times_ours": row["both"]["ms"]["median"] / ours["both"]["ms"]["median"],
    }
