"""`statemix doctor`: what is installed, what "auto" picks, and whether it computes the right numbers.

It needs torch alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

import torch

from statemix.cli import selfcheck
from statemix.cli.errors import Failure
from statemix.environment import cpu_model, versions
from statemix.ops import BACKENDS, explain_backend
from statemix.ops import launch as table
from statemix.text import visible

Rows = Iterable[Sequence[str]]


def doctor() -> None:
    """Show devices, versions and the chosen backends, and check the scans' numbers; exit code 1 if one is wrong."""
    _show("", (), environment())
    _show('backend="auto"', ("device", "picks", "because"), choices())
    for device in devices():
        if device.type == "cuda":
            print(visible(f"{device} launches: {launches(device)}"))
    print("checking every backend (the first time, kernels are compiled)", file=sys.stderr, flush=True)
    results = [check for device in devices() for check in selfcheck.checks(device)]
    names = ("device", "backend", "recurrence", "dtype", "error", "allowed", "")
    _show("largest relative error, states and gradients", names, map(_cells, results))
    failed = [check for check in results if not check.passed]
    if failed:
        first = " ".join(_cells(failed[0])[:4])
        raise Failure(f"{len(failed)} checks failed, the first: {first}")


def _show(title: str, names: Sequence[str], rows: Rows) -> None:
    """Print a table as plain text, which needs no package."""
    lines = [[visible(cell) for cell in row] for row in [names, *rows] if row]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in [title] if title else []:
        print(line)
    for cells in lines:
        print("  ".join(map(str.ljust, cells, widths)).rstrip())
    print()


def devices() -> list[torch.device]:
    """The CPU and every CUDA device."""
    return [torch.device("cpu"), *(torch.device("cuda", k) for k in range(torch.cuda.device_count()))]


def environment() -> Rows:
    """Devices, threads and versions."""
    for device in devices():
        yield str(device), torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    for package, version in versions().items():
        yield package, version or "not installed"


def choices() -> Rows:
    """What "auto" picks for each device, where float64 differs, and what cannot run there and why."""
    for device in devices():
        picked, double = explain_backend(device), explain_backend(device, torch.float64)
        yield str(device), *picked
        if double[0] != picked[0]:
            yield f"{device}, float64", *double
        for backend, module in BACKENDS.items():
            reason = module.unavailable(device, None)
            if reason is not None:
                yield "", f"not {backend}", reason


def launches(device: torch.device) -> str:
    """Which launch table the Triton kernels use on a CUDA device: the user's entries before the defaults."""
    capability = torch.cuda.get_device_capability(device) if torch.version.hip is None else (0, 0)
    usual = "portable kernels"
    if capability in table.MEASURED:
        usual = f"measured defaults for compute capability {'.'.join(map(str, capability))}"
    path = table.user_file()
    try:
        own = len(table.user_table(torch.cuda.get_device_name(device)))
    except ValueError as error:
        return str(error)
    if own:
        return f"{own} from {path}, else {usual}"
    return f"{usual}; none for this GPU in {path} (`statemix tune` benchmarks them)"


def _cells(check: selfcheck.Check) -> tuple[str, ...]:
    dtype, verdict = str(check.dtype).removeprefix("torch."), "ok" if check.passed else "WRONG"
    where = (check.device, check.backend, check.recurrence + ", hard" * check.hard, dtype)
    return (*where, f"{check.error:.1e}", f"{check.bound:.0e}", verdict)
