"""`statemix doctor`: what is here, what "auto" picks, and whether it computes the right numbers.

It needs torch alone: without rich, the same is printed as plain text.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator

import torch

from statemix.cli import selfcheck
from statemix.cli.errors import Failure
from statemix.cli.table import Cell, Column, Table
from statemix.environment import cpu_model, versions
from statemix.extras import installed
from statemix.ops import BACKENDS, explain_backend
from statemix.ops.triton import table
from statemix.text import visible
from statemix.waiting import is_watched


def doctor() -> None:
    """Show devices, versions and the chosen backends, and check the scans' numbers; exit code 1 if one is wrong."""
    show = _printer()
    show(_environment())
    show(_choices())
    for device in devices():
        if device.type == "cuda":
            show(f"{device} launches: {launches(device)}")
    with _telling("checking every backend (the first time, kernels are compiled)"):
        results = [check for device in devices() for check in selfcheck.checks(device)]
    show(_results(results))
    failed = [check for check in results if not check.passed]
    if failed:
        worst = failed[0]
        raise Failure(
            f"{len(failed)} checks failed, the first: {worst.device} {worst.backend} {worst.recurrence} "
            f"{worst.dtype}"
        )


def _printer() -> Callable[[Table | str], None]:
    """What prints a table or a line: rich, or `print` where rich is not installed."""
    if not installed("rich"):
        return lambda shown: print(f"{shown}\n" if isinstance(shown, Table) else visible(shown))
    from statemix.cli.console import output

    console = output()
    return lambda shown: console.print(shown) if isinstance(shown, Table) else console.say(shown)


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Say what is waited for, on standard error."""
    if not (installed("rich") and is_watched()):
        print(what, file=sys.stderr, flush=True)
        yield
        return
    from statemix.cli.console import progress

    with progress().status(what, spinner="line"):
        yield


def devices() -> list[torch.device]:
    """The CPU and every CUDA device."""
    return [torch.device("cpu"), *(torch.device("cuda", k) for k in range(torch.cuda.device_count()))]


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def _environment() -> Table:
    shown = Table("", [Column(""), Column("", prose=True)], headed=False)
    for device in devices():
        shown.add_row(str(device), _name(device))
    shown.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    for package, version in versions().items():
        shown.add_row(package, version or "not installed")
    return shown


def _choices() -> Table:
    """What "auto" picks for each device, where float64 differs, and what cannot run there and why."""
    shown = Table('backend="auto"', [Column("device"), Column("picks"), Column("because", prose=True)])
    for device in devices():
        picked, double = explain_backend(device), explain_backend(device, torch.float64)
        shown.add_row(str(device), *picked)
        if double[0] != picked[0]:
            shown.add_row(f"{device}, float64", *double)
        for backend, module in BACKENDS.items():
            reason = module.unavailable(device, None)
            if reason is not None:
                shown.add_row("", f"not {backend}", reason)
    return shown


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


def _results(results: Iterable[selfcheck.Check]) -> Table:
    names = ("device", "backend", "recurrence", "dtype", "error", "allowed", "")
    shown = Table("largest relative error, states and gradients", [Column(name) for name in names])
    for check in results:
        dtype = str(check.dtype).removeprefix("torch.")
        what = (check.device, check.backend, check.recurrence, dtype)
        shown.add_row(*what, f"{check.error:.1e}", f"{check.bound:.0e}", _verdict(check.passed))
    return shown


def _verdict(passed: bool) -> Cell:
    if not installed("rich"):
        return "ok" if passed else "WRONG"
    from statemix.cli.console import Styled

    return Styled("ok", "green") if passed else Styled("WRONG", "red")
