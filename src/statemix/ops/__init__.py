"""The recurrences as functions of tensors; knows no module and no configuration."""

from statemix.ops import registration  # noqa: F401  (defines the operators)
from statemix.ops.dispatch import BACKENDS, explain_backend
from statemix.ops.layout import in_fast_format
from statemix.ops.normalization import NORMALIZATIONS, normalize
from statemix.ops.scan import affine_scan, bdlru_scan, bdlru_step, hlru_scan, hlru_step

__all__ = [
    "BACKENDS",
    "NORMALIZATIONS",
    "affine_scan",
    "bdlru_scan",
    "bdlru_step",
    "explain_backend",
    "hlru_scan",
    "hlru_step",
    "in_fast_format",
    "normalize",
]
