"""Launching a kernel again without Triton's look-up.

Triton looks up the compiled kernel of every launch by the types, the alignment and the values of its arguments, which
takes longer than the launch. A `Launch` keeps the compiled kernel of its first launch instead. What it was compiled for
is settled by the kernel, the arguments that are no tensors and the dtypes of the tensors, all of which belong to the
`Launch`, and by two facts that every launch checks: the device, and that 16 divides every address.

Anything else goes the ordinary way, `kernel[grid](...)`: an address that 16 does not divide, a profiler's hooks, the
interpreter, ROCm (whose kernels are compiled for the sizes of tensors as well), and a version of Triton other than
`KNOWN_VERSIONS`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

KNOWN_VERSIONS = ("3.6", "3.7")
"""Triton's versions whose compiled kernels are called here as `JITFunction.run` calls them."""

ALIGNMENT = 16
"""Bytes that Triton knows to divide an address, or not."""

KNOWN = ".".join(triton.__version__.split(".")[:2]) in KNOWN_VERSIONS

Given = Tensor | tuple[Tensor, ...] | None
"""What a kernel takes for one of its pointers: a tensor, several, or none."""

Address = int | tuple[int, ...] | None


def _addresses(tensors: tuple[Given, ...]) -> tuple[list[Address], bool]:
    """Addresses in place of tensors, and whether `ALIGNMENT` divides them all."""
    addresses: list[Address] = []
    bits = 0
    for given in tensors:
        if type(given) is tuple:
            several = [tensor.data_ptr() for tensor in given]
            addresses.append(tuple(several))
            for address in several:
                bits |= address
        elif given is None:
            addresses.append(None)
        else:
            address = given.data_ptr()  # type: ignore[union-attr]
            addresses.append(address)
            bits |= address
    return addresses, bits % ALIGNMENT == 0


def _is_hooked() -> bool:
    """Whether someone looks at launches: a chain of hooks with calls in it, or a hook in place of the chain."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


class Launch:
    """A kernel, its number of programs, the arguments that follow its tensors, and Triton's options.

    A call launches it on the current device and stream, which are those of the tensors. They have the same dtypes, and
    are None in the same places, in every call. It may be called from several threads.
    """

    __slots__ = ("_again", "arguments", "grid", "kernel", "options")

    def __init__(self, kernel: Any, programs: int, *arguments: Any, **options: Any) -> None:
        self.kernel, self.grid = kernel, (programs,)
        self.arguments, self.options = arguments, options
        self._again: dict[int, tuple[Any, Any, Any]] = {}

    def __call__(self, *tensors: Given) -> None:
        """Launch, whatever the addresses are; no program is no launch."""
        if self.grid[0] and not self.again(*tensors):
            compiled = self.kernel[self.grid](*tensors, *self.arguments, **self.options)
            if compiled is not None and _addresses(tensors)[1]:
                self._keep(compiled)

    def again(self, *tensors: Given) -> bool:
        """Launch as an earlier call did, if there was one on this device and 16 divides all addresses; whether so."""
        if not self._again:
            return False
        active = driver.active
        device = active.get_current_device()
        known = self._again.get(device)
        if known is None:
            return False
        addresses, aligned = _addresses(tensors)
        if not aligned or _is_hooked():
            return False
        run, function, metadata = known
        run(
            active.get_current_stream(device),
            function,
            metadata,
            None,
            None,
            None,
            *addresses,
            *self.arguments,
        )
        return True

    def _keep(self, compiled: Any) -> None:
        active = driver.active
        if KNOWN and active.get_current_target().backend == "cuda":
            run = partial(compiled.run, *self.grid, 1, 1)
            self._again[active.get_current_device()] = run, compiled.function, compiled.packed_metadata
