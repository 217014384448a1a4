"""A machine with a GPU that is not there: kernels are compiled for it as they are launched, and nothing runs.

What is compiled is what the launchers of this package ask for, with tensors that have shapes and strides but no memory.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from statemix.ops.launch import LaunchConfig, choosing


class Resources(NamedTuple):
    """Registers of a thread, bytes of memory that a thread spills registers to, bytes of shared memory."""

    registers: int
    spill_bytes: int
    shared: int


class Target(NamedTuple):
    """A kind of GPU: Triton's name for it, lanes of a warp, and bytes of shared memory that one program may have."""

    backend: str
    arch: int | str
    lanes: int
    shared: int


TARGETS: dict[str, Target] = {
    "sm80": Target("cuda", 80, 32, 163 << 10),
    "sm90": Target("cuda", 90, 32, 227 << 10),
    "sm100": Target("cuda", 100, 32, 227 << 10),
    "gfx942": Target("hip", "gfx942", 64, 64 << 10),
}

FIRST_INDEX = 64
"""Device numbers of the targets, in their order: Triton and this package remember kernels and facts by number."""


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


def _shadows(device: torch.device) -> type[Tensor]:
    """A class of tensors without memory that say they are on a device, and so do those that are made like them."""

    class Shadow(Tensor):
        device = property(lambda _: device)  # type: ignore[assignment]
        is_cuda = property(lambda _: True)  # type: ignore[assignment]

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            """Worked out on the tensors without memory that they are."""
            with torch._C.DisableTorchFunctionSubclass():
                plain = tree_map_only(cls, lambda tensor: tensor.as_subclass(Tensor), (args, kwargs or {}))
                result = function(*plain[0], **plain[1])
                return result.as_subclass(cls) if isinstance(result, Tensor) else result

    return Shadow


class Machine:
    """Stands in for Triton's driver, and for the launch table.

    `launched` are the kernels launched so far, each once: (name, what it takes). `launch` is what the next calls are
    given; None stands for the portable kernels.
    """

    def __init__(self, name: str) -> None:
        self.target = TARGETS[name]
        self.index = FIRST_INDEX + list(TARGETS).index(name)
        self.launched: list[tuple[str, Resources]] = []
        self.launch: LaunchConfig | None = None
        self.utils = self
        self._kind = _shadows(torch.device("cuda", self.index))
        self._files: dict[str, str] = {}
        self.get_current_target = lambda: GPUTarget(self.target.backend, self.target.arch, self.target.lanes)
        self.get_current_device = lambda: self.index
        self.get_current_stream = lambda index: 0
        # Without end: what a kernel takes is compared with the target's limit afterwards (`record`).
        self.get_device_properties = lambda index: {"max_shared_mem": 1 << 30}

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor without memory that says it is on this device; its address divides by everything."""
        return torch.empty(shape, dtype=dtype, device="meta").as_subclass(self._kind)

    def note_files(self, module: Any, function: Any, name: str, files: dict[str, str], key: str) -> None:
        """Called before a kernel is loaded: where the stages of its compilation lie."""
        self._files = files

    def load_binary(self, name: str, binary: bytes, shared: int, index: int) -> tuple[Any, ...]:
        """Read instead of loading; the second of the results comes back with every launch."""
        stages = {Path(file).suffix: Path(path) for file, path in self._files.items()}
        took = READERS[self.target.backend](stages, shared)
        return name, (name, took), took.registers, took.spill_bytes, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """What is called to launch a compiled kernel."""

        def launch(x: int, y: int, z: int, stream: int, function: tuple[str, Resources], *_: Any) -> None:
            here = driver.active  # not self, if the kernel was compiled on an earlier machine of the target
            if not any(function is other for other in here.launched):
                here.launched.append(function)

        return launch


@contextmanager
def pretending(name: str) -> Iterator[Machine]:
    """A machine of a target by name (`TARGETS`) for Triton and for this package, with an empty compile cache."""
    machine = Machine(name)
    arch, facts = machine.target.arch, SimpleNamespace(warp_size=machine.target.lanes)
    capability = divmod(arch, 10) if isinstance(arch, int) else (9, 4)
    knobs.runtime.kernel_load_start_hook.add(machine.note_files)
    with ExitStack() as stack:
        stack.callback(knobs.runtime.kernel_load_start_hook.remove, machine.note_files)
        cache = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        stack.enter_context(mock.patch.dict(os.environ, {"TRITON_CACHE_DIR": cache}))
        for place, attribute, stand_in in (
            (torch.cuda, "get_device_properties", mock.Mock(return_value=facts)),
            (torch.cuda, "get_device_capability", mock.Mock(return_value=capability)),
            (torch.cuda, "get_device_name", mock.Mock(return_value=name)),
            (torch.cuda, "device_of", mock.MagicMock()),
            (torch.version, "hip", "0" if machine.target.backend == "hip" else None),
            (driver, "_active", machine),
        ):
            stack.enter_context(mock.patch.object(place, attribute, stand_in))
        stack.enter_context(choosing(lambda *_: machine.launch))
        yield machine
