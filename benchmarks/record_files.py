"""What every recorded measurement begins with."""

from __future__ import annotations

import datetime
from typing import Any

import torch

from statemix.environment import describe


def header(bench: str, what: str, command: str, device: torch.device) -> dict[str, Any]:
    """Which bench, what its numbers mean, the command, the date, the device and the versions."""
    return {
        "bench": bench,
        "what": what,
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **describe(str(device)),
        **(_gpu() if device.type == "cuda" else {}),
    }


def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cache_bytes": properties.L2_cache_size,
    }
