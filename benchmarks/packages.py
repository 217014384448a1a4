"""Packages whose scans and layers are measured where they are installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from statemix.environment import installed_version
from statemix.extras import install, installed


class Package(NamedTuple):
    """A distribution, and the module it is imported by."""

    distribution: str
    module: str

    @property
    def installed(self) -> str:
        """Name and version."""
        return f"{self.distribution} {installed_version(self.distribution)}"


TORCH = Package("torch", "torch")
FLA = Package("flash-linear-attention", "fla")
ACCELERATED_SCAN = Package("accelerated-scan", "accelerated_scan")


def skip_reason(package: Package, needs_gpu: bool, device: torch.device) -> str | None:
    """Why a baseline is skipped on a device, or None."""
    if not installed(package.module):
        return f"not installed: {install(package.module)}"
    return "needs a CUDA device" if needs_gpu and device.type != "cuda" else None


def choose(text: str, known: Iterable[str]) -> list[str]:
    """ "all", "none" or comma-separated names -> names; ValueError for an unknown one."""
    known = list(known)
    names = {"all": known, "none": []}.get(text, text.split(","))
    for name in names:
        if name not in known:
            raise ValueError(f"baselines: got {name!r}, expected all, none or some of {','.join(known)}")
    return names
