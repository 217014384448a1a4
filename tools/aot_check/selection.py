"""Which calls are compiled: all that are recorded, and the few of them that cover what all exercise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import triton

from statemix.ops import NORMALIZATIONS
from statemix.ops.launch import HOPPER, KERNELS, LaunchConfig
from statemix.ops.triton.portable.launch import BLOCK_T
from tools.aot_check.cases import DIRECTIONS, DTYPES, Case
from tools.aot_check.machine import TARGETS
from tools.aot_check.record import Record

GATED = ("bdlru", "hlru")
USUAL = "bfloat16"
MEASURED = [("sm90", USUAL)]
"""Target and dtype of the launch table."""

HOPPER_PLACES = list(product(("sm90", "sm100"), DTYPES))
"""Targets with Hopper's instructions, with dtypes."""

PLACES, USUAL_PLACES = list(product(TARGETS, DTYPES)), list(product(TARGETS, [USUAL]))

SIZES = range(1, 17)
WIDE = (32, 64, 128, 256)
"""The m at which kernels for large blocks and orders are compiled; larger ones take minutes."""

TOKEN = (1, 2, 4, 8, 16, 64)
"""The m at which the kernels of one token are compiled."""

ONE, ODD = 4, 3
"""The m where one is enough, and where an odd number of channels is wanted."""

SOME = tuple(name for name in NORMALIZATIONS if name not in ("softmax", "none"))
"""Normalisations beside the usual one; affine recurrences have none."""

HARD_USUAL, HARD_SOME = "hard:softmax", tuple(f"hard:{name}" for name in SOME)
HARD_SIZES = (1, 2, 4, 5, 8, 16)
"""Hard rows, and the m at which those of the usual normalisation are compiled for the launch table."""


def _cases(
    places: Iterable[tuple[str, str]], recurrences: Iterable[str], sizes: Iterable[int], *, hopper: bool = False,
    shape: str = "whole", normalization: str = "softmax", directions: Iterable[str] = DIRECTIONS,
) -> Iterator[Case]:  # fmt: skip
    """All combinations; with `hopper`, a case for each launch of the table."""
    for (target, dtype), recurrence, m, direction in product(places, recurrences, sizes, directions):
        name = "none" if recurrence == "affine" else normalization
        for launch in _launches(direction, recurrence, m, shape) if hopper else (None,):
            yield Case(target, direction, recurrence, m, dtype, launch, shape, name)


def _launches(direction: str, recurrence: str, m: int, shape: str) -> Iterable[LaunchConfig]:
    """The table's for few and for many lanes, once if they are the same; chunks and other shapes are many."""
    rows = HOPPER[KERNELS[recurrence], direction]
    few, many = next(pair for limit, pair in rows.items() if m <= limit)
    return dict.fromkeys((few, many) if shape in ("whole", "fused") else (many,))


def everything() -> list[Case]:
    """All that is recorded."""
    return list(dict.fromkeys([*_hopper(), *_portable()]))


def _hopper() -> Iterator[Case]:
    yield from _cases(HOPPER_PLACES[: len(DTYPES)], GATED, SIZES, hopper=True)
    yield from _cases([("sm100", USUAL)], GATED, SIZES, hopper=True)
    yield from _cases(MEASURED, GATED, SIZES, hopper=True, shape="chunks")
    yield from _cases(MEASURED, GATED, SIZES, hopper=True, shape="fused", directions=["backward"])
    yield from _cases(MEASURED, ["affine"], (1, 2, 4, 8, 16), hopper=True)
    for name in SOME:
        yield from _cases(MEASURED, GATED, [ONE], hopper=True, normalization=name)
    for shape, m in (("packed", ONE), ("odd", ODD), ("chunks", ONE), ("whole", ONE)):
        yield from _cases(HOPPER_PLACES, KERNELS, [m], hopper=True, shape=shape)
    yield from _hard_hopper()


def _hard_hopper() -> Iterator[Case]:
    """Hard rows: of the usual normalisation with every shape of a call, of the others with one."""
    yield from _cases(MEASURED, GATED, HARD_SIZES, hopper=True, normalization=HARD_USUAL)
    yield from _cases([("sm100", USUAL)], GATED, [ONE], hopper=True, normalization=HARD_USUAL)
    for shape, m in (("packed", ONE), ("odd", ODD), ("chunks", ONE), ("chunks", HARD_SIZES[-1])):
        yield from _cases(MEASURED, GATED, [m], hopper=True, shape=shape, normalization=HARD_USUAL)
    yield from _cases(
        MEASURED, GATED, [ONE], hopper=True, shape="fused", normalization=HARD_USUAL, directions=["backward"]
    )
    for name in HARD_SOME:
        yield from _cases(MEASURED, GATED[:1], [ONE], hopper=True, normalization=name)


def _portable() -> Iterator[Case]:
    yield from _cases(USUAL_PLACES, GATED, (*SIZES, *WIDE))
    for direction, recurrence in product(DIRECTIONS, KERNELS):
        sizes = (*BLOCK_T[KERNELS[recurrence], direction], WIDE[0])  # the table's, and the first beyond
        yield from _cases(PLACES, [recurrence], sizes, directions=[direction])
    yield from _cases(USUAL_PLACES, KERNELS, (*TOKEN[:-1], WIDE[0]), shape="chunks")
    yield from _cases(PLACES, KERNELS, TOKEN, shape="token", directions=["forward"])
    yield from _cases(USUAL_PLACES, KERNELS, [ONE], shape="packed")
    for name in SOME:
        yield from _cases(USUAL_PLACES, GATED, [ONE], normalization=name)
    for shape, sizes in (("whole", (ONE, WIDE[0])), ("chunks", (ONE,)), ("token", (ONE,))):
        directions = DIRECTIONS[:1] if shape == "token" else DIRECTIONS
        yield from _cases(
            USUAL_PLACES, GATED, sizes, shape=shape, normalization=HARD_USUAL, directions=directions
        )
    for name in HARD_SOME:
        yield from _cases(USUAL_PLACES[::3], GATED[:1], [ONE], normalization=name)


def covered_by(case: Case, record: Record) -> set[tuple[object, ...]]:
    """What compiling a case exercises.

    Each kernel with a compiler and with a shape of call; of the Hopper and of the portable kernels, which share theirs,
    a normalisation; a dtype on a target.
    """
    kernels = {kernel.partition(" (")[0] for kernel in record.get(str(case), {})}
    compiler = case.target if case.launch else TARGETS[case.target].backend
    return {
        (case.target, case.dtype),
        (case.launch is None, case.direction, case.normalization),
        *((kernel, what) for kernel in kernels for what in (compiler, case.shape)),
    }


def cover(record: Record) -> list[Case]:
    """A few cases that cover what all cover: always the one that adds most for the time that its m takes to compile.

    ValueError where nothing is recorded with this version of Triton.
    """
    if not record:
        raise ValueError(f"record: got none for Triton {triton.__version__}, expected one, or --all")
    covers = {case: covered_by(case, record) for case in everything()}
    chosen, left = [], set().union(*covers.values())
    while left:
        best = max(covers, key=lambda case: len(covers[case] & left) / (8 + case.m))
        chosen.append(best)
        left -= covers[best]
    return chosen
