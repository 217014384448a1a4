"""`statemix doctor`: what is here, what "auto" picks, and whether it computes the right numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from statemix.bench.environment import cpu_model, versions
from statemix.cli import selfcheck
from statemix.cli.console import output, progress
from statemix.cli.errors import Failure
from statemix.ops import BACKENDS, explain_backend
from statemix.ops.triton import table


def doctor() -> None:
    """Show devices, versions and the chosen backends, and check the scans' numbers; exit code 1 if one is wrong."""
    console = output()
    console.print(_environment())
    console.print(_choices())
    for device in devices():
        if device.type == "cuda":
            console.print(f"{device} launches: {launches(device)}", soft_wrap=True, markup=False)
    with progress().status("checking every backend (the first time, kernels are compiled)"):
        results = [check for device in devices() for check in selfcheck.checks(device)]
    _show(console, results)
    failed = [check for check in results if not check.passed]
    if failed:
        worst = failed[0]
        raise Failure(
            f"{len(failed)} checks failed, the first: {worst.device} {worst.backend} {worst.recurrence} "
            f"{worst.dtype}"
        )


def devices() -> list[torch.device]:
    """The CPU and every CUDA device."""
    return [torch.device("cpu"), *(torch.device("cuda", k) for k in range(torch.cuda.device_count()))]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def _environment() -> Table:
    table = Table.grid(padding=(0, 2))
    for device in devices():
        table.add_row(str(device), _name(device))
    table.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    for package, version in versions().items():
        table.add_row(package, version or "not installed")
    return table


def _choices() -> Table:
    """What "auto" picks for each device, where float64 differs, and what cannot run there and why."""
    table = Table(title='backend="auto"', title_justify="left")
    for column in ("device", "picks", "because"):
        table.add_column(column)
    for device in devices():
        picked, double = explain_backend(device), explain_backend(device, torch.float64)
        table.add_row(str(device), picked[0], escape(picked[1]))
        if double[0] != picked[0]:
            table.add_row(f"{device}, float64", double[0], escape(double[1]))
        for backend, module in BACKENDS.items():
            reason = module.unavailable(device, None)
            if reason is not None:
                table.add_row("", f"not {backend}", escape(reason))
    return table


def launches(device: torch.device) -> str:
    """Which launch table the Triton kernels go by on a CUDA device: the user's entries before the defaults."""
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
        return f"{own} of your own from {path}, else {usual}"
    return f"{usual}; none of your own for this GPU in {path} (`statemix tune` measures them)"


def _show(console: Console, results: Iterable[selfcheck.Check]) -> None:
    table = Table(title="largest relative error, states and gradients", title_justify="left")
    for column in ("device", "backend", "recurrence", "dtype", "error", "allowed", ""):
        table.add_column(column)
    for check in results:
        verdict = "[green]ok[/]" if check.passed else "[red]WRONG[/]"
        dtype = str(check.dtype).removeprefix("torch.")
        what = (check.device, check.backend, check.recurrence, dtype)
        table.add_row(*what, f"{check.error:.1e}", f"{check.bound:.0e}", verdict)
    console.print(table)
