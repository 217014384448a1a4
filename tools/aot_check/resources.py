"""What a compiled kernel takes, as its machine code says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from triton import knobs


class Resources(NamedTuple):
    """Registers of a thread, bytes of memory that a thread spills registers to, bytes of shared memory."""

    registers: int
    spill_bytes: int
    shared: int


def _nvidia(stages: Mapping[str, Path], shared: int) -> Resources:
    """From the machine code's own notes: no kernel has arrays of its own, so that its stack holds what is spilled."""
    command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(stages[".cubin"])]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.findall(rf"\b{field}:(\d+)", shown)[-1]) for field in ("REG", "STACK"))
    return Resources(registers, stack, shared)


def _amd(stages: Mapping[str, Path], shared: int) -> Resources:
    """From the assembly's notes: vector registers, and a thread's own memory."""
    text = stages[".amdgcn"].read_text()
    registers, private = (
        int(re.findall(rf"\.{field}:\s+(\d+)", text)[-1])
        for field in ("vgpr_count", "private_segment_fixed_size")
    )
    return Resources(registers, private, shared)


READERS: dict[str, Callable[[Mapping[str, Path], int], Resources]] = {"cuda": _nvidia, "hip": _amd}
"""By Triton's backend, from the stages of a compilation by their suffix and the bytes of shared memory."""
