"""What `statemix doctor` says about the choice of a backend."""

from __future__ import annotations

import json

import pytest
import torch

from statemix.cli import doctor, selfcheck
from statemix.ops import cpu, triton
from statemix.ops import launch as table


def shown(monkeypatch, *names):
    monkeypatch.setattr(doctor, "devices", lambda: [torch.device(name) for name in names])
    return [list(row) for row in doctor.choices()]


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch):
    monkeypatch.setattr(triton, "INTERPRETED", False)


def test_choices_on_a_machine_with_a_gpu(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", True)
    monkeypatch.setattr(triton, "INSTALLED", True)
    rows = shown(monkeypatch, "cpu", "cuda:0")
    assert [row[:2] for row in rows] == [
        ["cpu", "cpu"],
        ["", "not triton"],
        ["cuda:0", "triton"],
        ["cuda:0, float64", "reference"],
        ["", "not cpu"],
    ]
    assert all(row[2] for row in rows)


def test_choices_without_the_packages(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", False)
    monkeypatch.setattr(triton, "INSTALLED", False)
    rows = {tuple(row[:2]): row[2] for row in shown(monkeypatch, "cpu", "cuda:0")}
    assert 'pip install "numba>=0.60"' in rows["cpu", "reference"]
    assert "pip install triton" in rows["cuda:0", "reference"]


@pytest.fixture
def h200(tmp_path, monkeypatch):
    """A GPU that is not there, and where a launch table of its user would lie."""
    path = tmp_path / "launch.json"
    monkeypatch.setenv("STATEMIX_LAUNCH_TABLE", str(path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    table.user_table.cache_clear()
    yield path
    table.user_table.cache_clear()


def test_launches_by_default(h200, monkeypatch):
    said = doctor.launches(torch.device("cuda", 0))
    assert said.startswith("measured defaults for compute capability 9.0; none for this GPU")
    assert str(h200) in said
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert doctor.launches(torch.device("cuda", 0)).startswith("portable kernels; none for this GPU")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert doctor.launches(torch.device("cuda", 0)).startswith("portable kernels; none for this GPU")


def test_launches_of_a_users_table(h200):
    entries = {
        "bdlru forward m=4 bytes=2 lanes=few": [2, 2, 8, 3, 128],
        "order forward m=4 bytes=2 lanes=few": None,
    }
    h200.write_text(json.dumps({"devices": {"NVIDIA H200": entries}}))
    said = doctor.launches(torch.device("cuda", 0))
    assert said == f"2 from {h200}, else measured defaults for compute capability 9.0"


def test_a_damaged_table_is_told(h200):
    h200.write_text("{")
    assert doctor.launches(torch.device("cuda", 0)).startswith(f"{h200}: not a launch table")


def test_a_number_that_is_none_does_not_pass():
    nan = float("nan")
    assert not selfcheck.Check("cpu", "cpu", "bdlru", torch.float32, nan, 1.0).passed


def test_nan_in_one_output_is_seen(monkeypatch):
    right = selfcheck.outputs_and_gradients

    def spoilt(recurrence, inputs, backend, hard):
        outputs = right(recurrence, inputs, backend, hard)
        if backend is None:
            return outputs
        return (*outputs[:2], outputs[2] * float("nan"), *outputs[3:])

    monkeypatch.setattr(selfcheck, "outputs_and_gradients", spoilt)
    assert not any(check.passed for check in selfcheck.checks(torch.device("cpu")))


def test_only_what_can_run_is_checked(monkeypatch):
    monkeypatch.setattr(cpu, "INSTALLED", False)
    assert {check.backend for check in selfcheck.checks(torch.device("cpu"))} == {"reference"}


def test_hard_rows_are_checked():
    pytest.importorskip("numba")
    hard = [check for check in selfcheck.checks(torch.device("cpu")) if check.hard]
    assert {(check.backend, check.recurrence) for check in hard} == {
        (backend, recurrence) for backend in ("reference", "cpu") for recurrence in ("bdlru", "hlru")
    }
    assert all(check.passed for check in hard)
