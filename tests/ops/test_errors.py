"""Bad input: one clear error that names the argument, what came and what was expected."""

from __future__ import annotations

import pytest
import torch

from statemix.ops import affine_scan, bdlru_scan, bdlru_step, cpu, hlru_scan, hlru_step, normalize
from statemix.ops.dispatch import explain_backend
from tests.ops.cases import inputs

G, V, S = inputs("bdlru", B=1, T=4, N=3, m=2, dtype=torch.float32)
HG, HV, HS = inputs("hlru", B=1, T=4, N=3, m=2, dtype=torch.float32)
A, U, AS = inputs("affine", B=1, T=4, N=3, m=2, dtype=torch.float32)


def packed(*bounds, dtype=torch.int64):
    return {"cu_seqlens": torch.tensor(bounds, dtype=dtype)}


CASES = {
    "gates rank": (bdlru_scan, (G[0], V, S), {}, ValueError, r"gates: got shape \[4, 3, 2, 3\], expected \[B, T, N"),
    "gates no tensor": (bdlru_scan, ([1.0], V, S), {}, TypeError, "gates: got list, expected a tensor"),
    "gates size": (bdlru_scan, (G[..., :2], V, S), {}, ValueError, r"gates: got shape .*= \[1, 4, 3, 2, 3\]"),
    "values rank": (bdlru_scan, (G, V[..., 0], S), {}, ValueError, r"values: got shape \[1, 4, 3\]"),
    "values integer": (bdlru_scan, (G, V.long(), S), {}, TypeError, "values: got dtype torch.int64"),
    "values complex": (bdlru_scan, (G, V.to(torch.complex64), S), {}, TypeError, "values: got dtype torch.complex64"),
    "mixed dtypes": (bdlru_scan, (G.double(), V, S), {}, TypeError, "gates: got dtype torch.float64, expected that"),
    "batch differs": (bdlru_scan, (G, V.repeat(2, 1, 1, 1), S), {}, ValueError, "gates: got shape"),
    "time differs": (hlru_scan, (HG[:, :3], HV, HS), {}, ValueError, "gates: got shape"),
    "state rank": (bdlru_scan, (G, V, S[0]), {}, ValueError, r"initial_state: got shape \[3, 2\]"),
    "state size": (bdlru_scan, (G, V, S[:, :2]), {}, ValueError, r"initial_state: .* = \[1, 3, 2\]"),
    "state dtype": (bdlru_scan, (G, V, S.double()), {}, TypeError, "initial_state: got dtype torch.float64"),
    "state count": (bdlru_scan, (G, V, S), packed(0, 2, 4), ValueError, r"initial_state: .* = \[2, 3, 2\]"),
    "state device": (bdlru_scan, (G, V, S.to("meta")), {}, ValueError, "initial_state: got device meta"),
    "gates device": (bdlru_scan, (G.to("meta"), V, S), {}, ValueError, "gates: got device meta"),
    "normalisation": (bdlru_scan, (G, V), {"normalization": "soft"}, ValueError, "normalization: got 'soft'.*'silu'"),
    "backend": (bdlru_scan, (G, V), {"backend": "gpu"}, ValueError, "backend: got 'gpu', expected one of 'auto'"),
    "bounds start": (bdlru_scan, (G, V), packed(1, 4), ValueError, "cu_seqlens: starts at 1, expected 0"),
    "bounds fall": (bdlru_scan, (G, V), packed(0, 3, 2, 4), ValueError, "cu_seqlens: decreases from 3 to 2"),
    "bounds end": (bdlru_scan, (G, V), packed(0, 3), ValueError, "cu_seqlens: ends at 3, expected T = 4"),
    "bounds empty": (bdlru_scan, (G, V), packed(), ValueError, r"cu_seqlens: got shape \[0\]"),
    "bounds dtype": (bdlru_scan, (G, V), packed(0, 4, dtype=torch.float32), TypeError, "cu_seqlens: got dtype"),
    "bounds list": (bdlru_scan, (G, V), {"cu_seqlens": [0, 4]}, TypeError, "cu_seqlens: got list"),
    "bounds batch": (
        bdlru_scan, (G.repeat(2, 1, 1, 1, 1), V.repeat(2, 1, 1, 1)), packed(0, 4), ValueError, "got a batch of B = 2",
    ),
    "order zero": (hlru_scan, (HG[..., :1], HV), {}, ValueError, "gates: got m = 0"),
    "block zero": (bdlru_scan, (G[..., :0, :1], V[..., :0]), {}, ValueError, "gates: got m = 0"),
    "transitions": (affine_scan, (A[..., :1], U, AS), {}, ValueError, "transitions: got shape"),
    "inputs": (affine_scan, (A, None, AS), {}, TypeError, "inputs: got NoneType"),
    "step rank": (bdlru_step, (G, V, S), {}, ValueError, "values: got shape"),
    "step state": (bdlru_step, (G[:, 0], V[:, 0], S[:, :1]), {}, ValueError, "state: got shape"),
    "step no state": (hlru_step, (HG[:, 0], HV[:, 0], None), {}, TypeError, "state: got NoneType"),
    "step order": (hlru_step, (HG[:, 0], HV[:, 0], HS[..., :1]), {}, ValueError, r"state: .* = \[1, 3, 2\]"),
    "hard none": (bdlru_scan, (G, V), {"normalization": "none", "hard": True}, ValueError, "hard: got True"),
    "hard number": (hlru_scan, (HG, HV), {"hard": 1}, TypeError, "hard: got int, expected a bool"),
    "hard step": (bdlru_step, (G[:, 0], V[:, 0], S), {"hard": None}, TypeError, "hard: got NoneType, expected a bool"),
    "hard step none": (
        hlru_step, (HG[:, 0], HV[:, 0], HS), {"normalization": "none", "hard": True}, ValueError, "hard: got True with",
    ),
    "hard normalize": (normalize, (G, "none"), {"hard": True}, ValueError, "hard: got True with normalization 'none'"),
    "hard text": (normalize, (G,), {"hard": "yes"}, TypeError, "hard: got str, expected a bool"),
    "normalize": (normalize, (G, "max"), {}, ValueError, "normalization: got 'max'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_error(case):
    function, arguments, options, kind, message = CASES[case]
    with pytest.raises(kind, match=message):
        function(*arguments, **options)


def test_a_missing_extra_says_how_to_mend_it(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", False)
    assert explain_backend("cpu") == ("reference", cpu.unavailable(torch.device("cpu")))
    with pytest.raises(ValueError, match=r'backend: .cpu. cannot run: .*pip install "numba>=0.60"'):
        bdlru_scan(G, V, S, backend="cpu")
    bdlru_scan(G, V, S)  # "auto" still has the reference
