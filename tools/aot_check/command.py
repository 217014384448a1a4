"""The command: compile, and show, check or record what every call takes."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import triton

from tools.aot_check import record as records
from tools.aot_check.cases import Case, call
from tools.aot_check.machine import TARGETS, pretending
from tools.aot_check.selection import cover, everything

Outcome = tuple[Case, "records.Launched | str"]

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "kernel_resources.json"
"""Read where no other file is named."""

SAVE_EVERY = 25
"""Results between two savings of the record."""


def compile_case(case: Case) -> Outcome:
    """What a case's kernels take, or why they do not compile."""
    with pretending(case.target) as machine:
        try:
            call(case, machine)
        except Exception as error:  # of the compiler; it is reported, and the other cases are compiled
            return case, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return case, machine.launched


def compile_all(cases: list[Case], jobs: int) -> Iterator[Outcome]:
    """Every case, in no order, in `jobs` processes of their own: there no interpreter stands in for the compiler."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(compile_case, cases)


def select(cases: Iterable[Case], targets: str, words: str, part: str) -> list[Case]:
    """Cases of some targets that have all the words, and of these every N-th from the K-th (part "K/N")."""
    wanted = targets.split(",")
    unknown = sorted(set(wanted) - set(TARGETS))
    if unknown:
        raise ValueError(f"targets: got {', '.join(unknown)}, expected some of {', '.join(TARGETS)}")
    k, _, n = part.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise ValueError(f"part: got {part!r}, expected K/N such as 1/4")
    chosen = [c for c in cases if c.target in wanted and set(words.split()) <= set(str(c).split())]
    return chosen[int(k) - 1 :: int(n)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.aot_check",
        description="Compile kernels for GPUs that are not here; show registers, spilled bytes and shared memory.",
        epilog="Example: python -m tools.aot_check --targets sm90 --select 'forward m=4'",
    )
    add = parser.add_argument
    add("--all", action="store_true", help="all that is recorded, not only the few of every test run")
    add("--targets", default=",".join(TARGETS), help="some of %(default)s")
    add("--select", default="", help="words that a call must have, such as 'bdlru m=4 float32'")
    add("--part", default="1/1", help="K/N: every N-th call, from the K-th")
    add("--jobs", type=int, default=1, help="processes")
    add("--missing", action="store_true", help="with --write: only calls without an entry")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--check", type=Path, metavar="FILE", help="compare with a record; exit code 1 if one differs")
    add("--write", type=Path, metavar="FILE", help="enter what was compiled into a record")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 if a kernel does not compile, takes too much or is not as recorded; 2 for a wrong argument."""
    options = _parse(arguments)
    try:
        record = records.read(options.check or options.write or RECORD)
        pool = everything() if options.all or options.select else cover(record)
        cases = select(pool, options.targets, options.select, options.part)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.write:
        records.keep(record, everything())
    if options.missing:
        cases = [case for case in cases if str(case) not in record]
    start, wrong = time.monotonic(), 0
    for done, (case, launched) in enumerate(compile_all(cases, options.jobs), start=1):
        if isinstance(launched, str):
            problems = [f"{case}: {launched}"]
        else:
            if not options.check:
                records.enter(record, case, launched)
                print(*(f"{case}: {kernel} {took._asdict()}\n" for kernel, took in launched), sep="", end="")
            problems = list(records.problems(case, launched, record))
        wrong += len(problems)
        print(*(f"WRONG {line}\n" for line in problems), sep="", end="", flush=True)
        if options.write and (done % SAVE_EVERY == 0 or done == len(cases)):
            records.write(options.write, record)
    seconds = time.monotonic() - start
    print(f"Triton {triton.__version__}: {len(cases)} calls compiled in {seconds:.0f} s, {wrong} wrong")
    return 1 if wrong else 0
