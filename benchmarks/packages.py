"""Packages whose scans and layers are measured where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks.measure import attempt
from benchmarks.records import Record
from statemix.environment import installed_version
from statemix.extras import install, installed


class Package(NamedTuple):
    """A distribution, and the module it is imported by."""

    distribution: str
    module: str


TORCH = Package("torch", "torch")
FLA = Package("flash-linear-attention", "fla")
ACCELERATED_SCAN = Package("accelerated-scan", "accelerated_scan")


@dataclass(frozen=True)
class Baseline:
    """What is measured beside statemix: what it is, where it comes from, and whether it runs on CUDA devices alone."""

    description: str
    package: Package
    needs_gpu: bool


def run(
    baseline: Baseline, names: Record, device: torch.device, measure: Callable[[], Record] | str
) -> Record:
    """A baseline's measured row, or the row with the reason why it was skipped or failed.

    measure: measures it, or says why it cannot be measured.
    """
    distribution, module = baseline.package
    row = {
        "description": baseline.description,
        "package": f"{distribution} {installed_version(distribution)}",
    }
    if not installed(module):
        return row | names | {"skipped": f"not installed: {install(module)}"}
    if baseline.needs_gpu and device.type != "cuda":
        return row | names | {"skipped": "needs a CUDA device"}
    if isinstance(measure, str):
        return row | names | {"skipped": measure}
    return attempt(row | names, device, measure)


def choose(text: str, known: Iterable[str]) -> list[str]:
    """ "all", "none" or comma-separated names -> names; ValueError for an unknown one."""
    known = list(known)
    names = {"all": known, "none": []}.get(text, text.split(","))
    for name in names:
        if name not in known:
            raise ValueError(f"baselines: got {name!r}, expected all, none or some of {','.join(known)}")
    return names
