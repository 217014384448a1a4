"""Random inputs for the scans, in every shape, dtype and memory layout."""

from __future__ import annotations

import torch
from torch import Tensor

from statemix.ops import affine_scan, bdlru_scan, bdlru_step, hlru_scan, hlru_step
from tests.ops.loops import ALL, HARD

BACKENDS = ("reference", "cpu")
RECURRENCES = ("bdlru", "hlru", "affine")


def inputs(
    recurrence: str,
    B: int = 2,
    T: int = 7,
    N: int = 3,
    m: int = 2,
    *,
    sequences: int | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(gates, values, initial_state) of one recurrence; affine transitions are kept small enough not to explode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    gate_shape = {"bdlru": (m, m + 1), "hlru": (m + 1,), "affine": (m, m)}[recurrence]
    value_shape = () if recurrence == "hlru" else (m,)
    gates, values = normal(B, T, N, *gate_shape), normal(B, T, N, *value_shape)
    if recurrence == "affine":
        gates = gates / (1 + gates.abs().sum(-1, keepdim=True))
    state = normal(B if sequences is None else sequences, N, m)
    return (
        gates.to(dtype),
        values.to(dtype),
        state.to(torch.float64 if dtype == torch.float64 else torch.float32),
    )


def run(
    recurrence: str, gates: Tensor, values: Tensor, state: Tensor | None, name: str = "softmax", **options
):
    """Call the public scan of a recurrence; affine knows no normalisation."""
    if recurrence == "affine":
        return affine_scan(gates, values, state, **options)
    scan = {"bdlru": bdlru_scan, "hlru": hlru_scan}[recurrence]
    return scan(gates, values, state, **by_name(name), **options)


def step(recurrence: str, gates: Tensor, values: Tensor, state: Tensor, name: str = "softmax", **options):
    """Call the public step of a recurrence."""
    function = {"bdlru": bdlru_step, "hlru": hlru_step}[recurrence]
    return function(gates, values, state, **by_name(name), **options)


def by_name(name: str) -> dict[str, object]:
    """The options of a normalisation, which is hard behind "hard:"."""
    return {"normalization": name.removeprefix("hard:"), "hard": name.startswith("hard:")}


def names(recurrence: str) -> tuple[str, ...]:
    """The normalisations a recurrence takes, with soft rows."""
    return ("none",) if recurrence == "affine" else ALL


FIRST = [*((r, names(r)[0]) for r in RECURRENCES), ("bdlru", "hard:softmax"), ("hlru", "hard:softmax")]
"""Every recurrence with soft rows, and those that have hard ones."""

HARD_CASES = [(r, name) for r in ("bdlru", "hlru") for name in HARD]


def restride(tensor: Tensor, kind: str) -> Tensor:
    """The same numbers in another memory layout."""
    if kind == "fast":  # N innermost
        return tensor.movedim(2, -1).contiguous().movedim(-1, 2)
    if kind == "sliced":  # every second element of a larger buffer, and an offset
        buffer = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1] + 1), float("nan"))
        view = buffer[..., 1::2]
        return view.copy_(tensor)
    if kind == "time_outermost":
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    assert kind == "contiguous"
    return tensor.contiguous()


LAYOUTS = ("contiguous", "fast", "sliced", "time_outermost")


def relative(got: Tensor, want: Tensor) -> float:
    """RMS of the difference over RMS of what was wanted."""
    want = want.detach().double()
    return float((got.detach().double() - want).norm() / want.norm().clamp(min=1e-300))


def made_by_one_product(state):
    """Whether gates and values of the scan behind a final state came of one product."""
    made = state.grad_fn
    if "Slice" in type(made).__name__:  # blocks that were added are cut off
        made = made.next_functions[0][0]
    return "ProjectedScan" in type(made).__name__
