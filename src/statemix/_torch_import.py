"""Imports torch, first of all: where NumPy is not installed, without torch's warning that it is not.

The layers and scans need no NumPy. torch warns while it is imported, once in a process.
"""

from __future__ import annotations

import warnings

from statemix.extras import installed

if installed("numpy"):
    import torch
else:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Failed to initialize NumPy", category=UserWarning)
        import torch

__all__ = ["torch"]
