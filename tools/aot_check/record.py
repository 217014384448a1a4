"""The record of what every launch takes, as JSON: Triton's version -> target -> kernel -> call -> three numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import triton

from statemix.training.files import replace_file
from tools.aot_check.cases import Case
from tools.aot_check.machine import TARGETS, Resources

TOLERANCE = 8
"""Registers that a call may take more or fewer than recorded."""

Launched = Sequence[tuple[str, Resources]]
Record = dict[str, dict[str, Resources]]
"""What each case, by its text, takes, by kernel: with this version of Triton."""


def read(path: Path) -> Record:
    """A record; empty without the file or this version of Triton in it. ValueError if it is something else."""
    record: Record = {}
    if not path.is_file():
        return record
    try:
        targets = json.loads(path.read_text(encoding="utf-8"))["versions"].get(triton.__version__, {})
        for target, kernels in targets.items():
            for kernel, calls in kernels.items():
                for call, numbers in calls.items():
                    record.setdefault(f"{target} {call}", {})[kernel] = Resources(*numbers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a record of kernel resources ({error!r})") from error
    return record


def write(path: Path, record: Record) -> None:
    """Write a record of this version of Triton alone, whole or not at all: sorted, one line a call."""
    targets: Any = {}
    for case, kernels in record.items():
        target, _, call = case.partition(" ")
        for kernel, took in kernels.items():
            targets.setdefault(target, {}).setdefault(kernel, {})[call] = took
    content = {"numbers": Resources._fields, "versions": {triton.__version__: targets}}
    text = json.dumps(content, indent=1, sort_keys=True)
    text = re.sub(r"\[[^\]]*\]", lambda found: json.dumps(json.loads(found[0])), text)  # a call on one line
    replace_file(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def enter(record: Record, case: Case, launched: Launched) -> None:
    """Put down what a case took, in place of what it took before."""
    record[str(case)] = dict(_numbered(launched))


def keep(record: Record, cases: Iterable[Case]) -> None:
    """Remove calls that are no cases any more."""
    for key in set(record).difference(map(str, cases)):
        del record[key]


def problems(case: Case, launched: Launched, record: Record) -> Iterator[str]:
    """What is wrong with a case: over the target's limit, or not what is recorded, if anything is."""
    recorded, limit = record.get(str(case), {}), TARGETS[case.target].shared
    for kernel, took in _numbered(launched):
        what, was = f"{case}: {kernel}", recorded.get(kernel)
        if took.shared > limit:
            yield f"{what} takes {took.shared} bytes of shared memory, {case.target} has {limit}"
        if was is None:
            yield from [f"{what} is not recorded"] if record else []
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
