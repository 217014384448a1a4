"""Packages beyond torch: what is said when one is missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class Package(NamedTuple):
    """What is given to pip, and the extra that brings it along: of statemix (".") or of statemix-research."""

    requirement: str
    extra: str


PACKAGES: dict[str, Package] = {
    "numba": Package("numba>=0.60", ".[cpu]"),
    "triton": Package("triton>=3.6", ".[gpu]"),
    "typer": Package("typer>=0.26", ".[train]"),
    "rich": Package("rich>=13.7", ".[train]"),
    "safetensors": Package("safetensors>=0.4.3", ".[train]"),
    "tomli": Package("tomli>=2.0", ".[train]"),
    "tensorboard": Package("tensorboard>=2.16", ".[tensorboard]"),
    "matplotlib": Package("matplotlib>=3.8", ".[report]"),
    "jinja2": Package("jinja2>=3.1", ".[report]"),
    "pandas": Package("pandas>=2.1", ".[report]"),
    "datasets": Package("datasets>=4.7", ".[text]"),
    "tokenizers": Package("tokenizers>=0.23", ".[text]"),
    "numpy": Package("numpy>=1.26", ".[text]"),
    "filelock": Package("filelock>=3.15", ".[text]"),
    "transformers": Package("transformers>=5.17", ".[hf]"),
    "accelerate": Package("accelerate>=1.15", ".[lm]"),
    "lm_eval": Package("lm-eval>=0.4.13", ".[eval]"),
    "fla": Package("flash-linear-attention>=0.6.0", "./research[kernels]"),
    "accelerated_scan": Package("accelerated-scan>=0.3.1", "./research[kernels]"),
    "distributed": Package("dask[distributed]>=2026.8", "./research[cluster]"),
}
"""By the name that is imported. The requirements are those of the two pyproject.toml."""


def installed(module: str) -> bool:
    """Whether a module can be imported; it is not."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a finder that refuses it, or something without a spec in its place
        return False


def install(*modules: str) -> str:
    """The command that installs packages, given by the names they are imported by."""
    return "pip install " + " ".join(f'"{PACKAGES[module].requirement}"' for module in modules)


def missing(module: str) -> str:
    """One line: the package is not installed, what installs it, and what does from a clone."""
    name = PACKAGES[module].requirement.partition(">")[0]
    return (
        f"{name} is not installed: {install(module)}"
        f' (from a clone of statemix: pip install -e "{PACKAGES[module].extra}")'
    )


def require(*modules: str) -> None:
    """ImportError that says how to install the first of the packages that is not installed."""
    for module in modules:
        if not installed(module):
            raise ImportError(missing(module))
