"""The recurrences as functions of tensors; knows no module and no configuration."""

from statemix.ops.normalization import NORMALIZATIONS, normalize
from statemix.ops.registration import BACKENDS, explain_backend
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
    "normalize",
]
