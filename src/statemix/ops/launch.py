"""Launch tables of the GPU kernels: which configuration runs which call. For tuning and benchmarks."""

from statemix.ops.triton.launch_table import (
    MANY_LANES,
    MEASURED,
    LaunchConfig,
    LaunchKey,
    choose,
    choosing,
    default_launch,
    read_user_file,
    user_file,
    user_table,
)

__all__ = [
    "MANY_LANES",
    "MEASURED",
    "LaunchConfig",
    "LaunchKey",
    "choose",
    "choosing",
    "default_launch",
    "read_user_file",
    "user_file",
    "user_table",
]
