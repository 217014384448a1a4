"""Block-diagonal and higher-order linear recurrences for PyTorch (BD-LRU and H-LRU, arXiv 2602.12021)."""

import warnings

with warnings.catch_warnings():  # of torch's, once a process: layers and scans need no NumPy
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)
    import torch  # noqa: F401

from statemix.nn import BDLRU, HLRU
from statemix.ops import affine_scan, bdlru_scan, bdlru_step, hlru_scan, hlru_step

__version__ = "0.1.0"

__all__ = [
    "BDLRU", "HLRU", "__version__", "affine_scan", "bdlru_scan", "bdlru_step", "hlru_scan", "hlru_step",
]  # fmt: skip
