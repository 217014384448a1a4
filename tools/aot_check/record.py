"""The record of what every launch takes: Triton's version -> target -> kernel -> call -> three numbers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import triton

from tools.aot_check.cases import Case
from tools.aot_check.machine import TARGETS
from tools.aot_check.resources import Resources

TOLERANCE = 8
"""Registers that a call may take more or fewer than recorded."""

Launched = Sequence[tuple[str, Resources]]
Record = dict[str, dict[str, dict[str, dict[str, Resources]]]]


def read(path: Path) -> Record:
    """A record; empty without the file. ValueError if it is something else."""
    if not path.is_file():
        return {}
    try:
        versions = json.loads(path.read_text(encoding="utf-8"))["versions"]
        return {
            version: {
                target: {
                    kernel: {call: Resources(*numbers) for call, numbers in calls.items()}
                    for kernel, calls in kernels.items()
                }
                for target, kernels in targets.items()
            }
            for version, targets in versions.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a record of kernel resources ({error!r})") from error


def write(path: Path, record: Record) -> None:
    """Write a record, whole or not at all: sorted, one line a call."""
    text = json.dumps({"numbers": Resources._fields, "versions": record}, indent=1, sort_keys=True)
    text = re.sub(r"\[[^\]]*\]", lambda found: json.dumps(json.loads(found[0])), text)  # a call on one line
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def enter(record: Record, case: Case, launched: Launched) -> None:
    """Put down what a case took, in place of what it took before."""
    kernels = record.setdefault(triton.__version__, {}).setdefault(case.target, {})
    _forget(kernels, {case.call})
    for kernel, took in _numbered(launched):
        kernels.setdefault(kernel, {})[case.call] = took


def keep(record: Record, cases: Iterable[Case]) -> None:
    """Forget, for this version of Triton, calls that are no cases any more."""
    wanted: dict[str, set[str]] = {}
    for case in cases:
        wanted.setdefault(case.target, set()).add(case.call)
    for target, kernels in record.get(triton.__version__, {}).items():
        recorded = {call for calls in kernels.values() for call in calls}
        _forget(kernels, recorded - wanted.get(target, set()))


def _forget(kernels: dict[str, dict[str, Resources]], calls: set[str]) -> None:
    for kernel in list(kernels):
        for call in calls & set(kernels[kernel]):
            del kernels[kernel][call]
        if not kernels[kernel]:
            del kernels[kernel]


def holds(record: Record, case: Case) -> bool:
    """Whether there is an entry for a case."""
    kernels = record.get(triton.__version__, {}).get(case.target, {})
    return any(case.call in calls for calls in kernels.values())


def problems(case: Case, launched: Launched, record: Record) -> Iterator[str]:
    """What is wrong with a case: over the target's limit, or not what is recorded for this version of Triton."""
    known: Any = record.get(triton.__version__)
    for kernel, took in _numbered(launched):
        what, limit = f"{case}: {kernel}", TARGETS[case.target].shared
        if took.shared > limit:
            yield f"{what} takes {took.shared} bytes of shared memory, {case.target} has {limit}"
        if known is None:
            continue
        was = known.get(case.target, {}).get(kernel, {}).get(case.call)
        if was is None:
            yield f"{what} is not recorded"
        elif (
            abs(took.registers - was.registers) > TOLERANCE
            or took.spill_bytes > was.spill_bytes
            or took.shared != was.shared
        ):
            yield f"{what} takes {took._asdict()}, recorded is {was._asdict()}"


def _numbered(launched: Launched) -> Iterator[tuple[str, Resources]]:
    """Kernels of one name, compiled in several ways for one call, are told apart by a number."""
    seen: dict[str, int] = {}
    for kernel, took in launched:
        seen[kernel] = seen.get(kernel, 0) + 1
        yield (kernel if seen[kernel] == 1 else f"{kernel} ({seen[kernel]})"), took
