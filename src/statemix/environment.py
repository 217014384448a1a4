"""Where a measurement was taken: device, cores, threads, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

PACKAGES = ("torch", "triton", "numba", "statemix")


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """The version of an installed package, or None. Nothing is imported but torch, which knows its own build."""
    if package == "torch":
        return str(torch.__version__)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that matter to speed; None where one is not installed."""
    return {"python": platform.python_version()} | {name: installed_version(name) for name in PACKAGES}


def describe(device: str = "cpu") -> dict[str, object]:
    """Device name, system, cores, torch's threads and versions, ready for JSON."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
