"""The record of what every launch takes, as JSON: Triton's version -> target -> kernel -> call -> three numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import triton

from statemix.training.files import replace_file
from tools.aot_check.cases import Case
from tools.aot_check.machine import TARGETS
from tools.aot_check.resources import Resources

TOLERANCE = 8
"""Registers that a call may take more or fewer than recorded."""

Launched = Sequence[tuple[str, Resources]]


class Key(NamedTuple):
    """A call: Triton's version, target and call."""

    version: str
    target: str
    call: str


Record = dict[Key, dict[str, Resources]]
"""What each call takes, by kernel."""


def key_of(case: Case) -> Key:
    """The entry of a case with this version of Triton."""
    return Key(triton.__version__, case.target, case.call)


def read(path: Path) -> Record:
    """A record; empty without the file. ValueError if it is something else."""
    if not path.is_file():
        return {}
    record: Record = {}
    try:
        for version, targets in json.loads(path.read_text(encoding="utf-8"))["versions"].items():
            for target, kernels in targets.items():
                for kernel, calls in kernels.items():
                    for call, numbers in calls.items():
                        record.setdefault(Key(version, target, call), {})[kernel] = Resources(*numbers)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a record of kernel resources ({error!r})") from error
    return record


def write(path: Path, record: Record) -> None:
    """Write a record, whole or not at all: sorted, one line a call."""
    versions: Any = {}
    for (version, target, call), kernels in record.items():
        for kernel, took in kernels.items():
            versions.setdefault(version, {}).setdefault(target, {}).setdefault(kernel, {})[call] = took
    text = json.dumps({"numbers": Resources._fields, "versions": versions}, indent=1, sort_keys=True)
    text = re.sub(r"\[[^\]]*\]", lambda found: json.dumps(json.loads(found[0])), text)  # a call on one line
    replace_file(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def enter(record: Record, case: Case, launched: Launched) -> None:
    """Put down what a case took, in place of what it took before."""
    record[key_of(case)] = dict(_numbered(launched))


def keep(record: Record, cases: Iterable[Case]) -> None:
    """Remove, for this version of Triton, calls that are no cases any more."""
    wanted = set(map(key_of, cases))
    for key in [key for key in record if key.version == triton.__version__ and key not in wanted]:
        del record[key]


def problems(case: Case, launched: Launched, record: Record) -> Iterator[str]:
    """What is wrong with a case: over the target's limit, or not what is recorded for this version of Triton."""
    recorded, limit = record.get(key_of(case), {}), TARGETS[case.target].shared
    is_recorded = any(key.version == triton.__version__ for key in record)
    for kernel, took in _numbered(launched):
        what, was = f"{case}: {kernel}", recorded.get(kernel)
        if took.shared > limit:
            yield f"{what} takes {took.shared} bytes of shared memory, {case.target} has {limit}"
        if was is None:
            yield from [f"{what} is not recorded"] if is_recorded else []
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
