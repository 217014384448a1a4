"""Packages of others that a bench measures when they are there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import torch

from statemix.environment import installed_version
from statemix.extras import install


class Package(NamedTuple):
    """A distribution, the module it is imported by, and how it is installed."""

    distribution: str
    module: str
    install: str


TORCH = Package("torch", "torch", "pip install torch")
FLA = Package("flash-linear-attention", "fla", install("fla"))
ACCELERATED_SCAN = Package("accelerated-scan", "accelerated_scan", install("accelerated_scan"))


def missing(package: Package) -> str | None:
    """How to install a package that is not there, or None."""
    if find_spec(package.module) is None:
        return f"not installed: {package.install}"
    return None


def version(package: Package) -> str | None:
    """The installed version."""
    return installed_version(package.distribution)


def reason(error: BaseException) -> str:
    """Why a rival failed, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


@contextlib.contextmanager
def short_tuning() -> Iterator[None]:
    """Let packages that tune Triton kernels at their first call time each candidate for 25 ms instead of 125 ms."""
    benchmarker = None
    if torch.cuda.is_available():
        import triton

        driver = type(triton.runtime.driver.active)
        benchmarker = getattr(driver, "get_benchmarker", None)
    if benchmarker is None:
        yield
        return
    driver.get_benchmarker = lambda self: functools.partial(benchmarker(self), warmup=5, rep=20)
    try:
        yield
    finally:
        driver.get_benchmarker = benchmarker
