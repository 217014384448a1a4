"""Which calls are compiled: all that are recorded, and a spread of them that every test run compiles again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import cycle, product

from statemix.ops import NORMALIZATIONS
from statemix.ops.triton.launch_table import HOPPER, KERNELS, LaunchConfig
from statemix.ops.triton.portable.launch import BLOCK_T
from tools.aot_check.cases import DIRECTIONS, DTYPES, Case
from tools.aot_check.machine import TARGETS

MEASURED, HOPPER_TARGETS = "sm90", ("sm90", "sm100")
"""The target of the launch table, and the targets with Hopper's instructions."""

GATED = ("bdlru", "hlru")
USUAL, OTHERS = "bfloat16", ("float32", "float16")
PLACES = {targets: list(product(targets, DTYPES)) for targets in (HOPPER_TARGETS, tuple(TARGETS))}
"""Targets with dtypes."""

SIZES = range(1, 17)
WIDE = (32, 64, 128, 256)
"""The m at which kernels for large blocks and orders are compiled; larger ones take minutes."""

TOKEN = (1, 2, 4, 8, 16, 64)
"""The m at which the kernels of one token are compiled."""

ONE, ODD = 4, 3
"""The m where one is enough, and where an odd number of channels is wanted."""

SOME = tuple(name for name in NORMALIZATIONS if name not in ("softmax", "none"))
"""Normalisations beside the usual one; affine recurrences have none."""


def _cases(
    places: Iterable[tuple[str, str]], recurrences: Iterable[str], sizes: Iterable[int], *, hopper: bool = False,
    shape: str = "whole", normalization: str = "softmax", directions: Iterable[str] = tuple(DIRECTIONS),
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


def limits(direction: str, recurrence: str) -> tuple[int, ...]:
    """The m at which the launch table has an entry of its own."""
    return tuple(HOPPER[KERNELS[recurrence], direction])


def _small_limits(direction: str, recurrence: str) -> tuple[int, ...]:
    """The same of the portable kernels' table, and the first m beyond."""
    return (*BLOCK_T[KERNELS[recurrence], direction], WIDE[0])


def everything() -> list[Case]:
    """All that is recorded."""
    return list(dict.fromkeys([*_all_hopper(), *_all_portable(), *spread()]))


def _all_hopper() -> Iterator[Case]:
    here = [(MEASURED, USUAL)]
    yield from _cases([(MEASURED, dtype) for dtype in DTYPES], GATED, SIZES, hopper=True)
    yield from _cases([("sm100", USUAL)], GATED, SIZES, hopper=True)
    yield from _cases(here, GATED, SIZES, hopper=True, shape="chunks")
    yield from _cases(here, GATED, SIZES, hopper=True, shape="fused", directions=["backward"])
    yield from _cases(here, ["affine"], (1, 2, 4, 8, 16), hopper=True)
    for name in SOME:
        yield from _cases(here, GATED, [ONE], hopper=True, normalization=name)
    for shape, m in (("packed", ONE), ("odd", ODD), ("chunks", ONE), ("whole", ONE)):
        yield from _cases(PLACES[HOPPER_TARGETS], KERNELS, [m], hopper=True, shape=shape)


def _all_portable() -> Iterator[Case]:
    usual = [(target, USUAL) for target in TARGETS]
    yield from _cases(usual, GATED, (*SIZES, *WIDE))
    for direction, recurrence in product(DIRECTIONS, KERNELS):
        yield from _cases(
            PLACES[tuple(TARGETS)], [recurrence], _small_limits(direction, recurrence), directions=[direction]
        )
    yield from _cases(usual, KERNELS, (*TOKEN[:-1], WIDE[0]), shape="chunks")
    yield from _cases(PLACES[tuple(TARGETS)], KERNELS, TOKEN, shape="token", directions=["forward"])
    yield from _cases(usual, KERNELS, [ONE], shape="packed")
    for name in SOME:
        yield from _cases(usual, GATED, [ONE], normalization=name)


def spread() -> list[Case]:
    """What every test run compiles: each entry of the table as it was measured; every m; every kernel for every
    dtype and target; every normalisation and every shape of a call, on targets and dtypes in turn."""
    return list(dict.fromkeys([*_entries(), *_some_hopper(), *_some_portable()]))


def _entries() -> Iterator[Case]:
    for direction, recurrence in product(DIRECTIONS, GATED):
        yield from _cases(
            [(MEASURED, USUAL)], [recurrence], limits(direction, recurrence), hopper=True, directions=[direction]
        )  # fmt: skip


def _some_hopper() -> Iterator[Case]:
    places, directions = cycle(PLACES[HOPPER_TARGETS]), cycle(DIRECTIONS)

    def one(recurrence: str, m: int, **what: str) -> Case:
        return next(
            _cases([next(places)], [recurrence], [m], hopper=True, directions=[next(directions)], **what)
        )

    for place, direction in product(PLACES[HOPPER_TARGETS], DIRECTIONS):
        yield next(_cases([place], ["bdlru"], [2], hopper=True, directions=[direction]))
    for m in SIZES:
        if m not in limits("forward", "bdlru"):
            yield one("bdlru", m)
    for recurrence, m in zip(cycle(GATED), (1, 2, 4, 8, 16, 2), strict=False):
        yield one(recurrence, m, shape="chunks")
    for recurrence, name in zip(cycle(GATED), SOME, strict=False):
        yield one(recurrence, ONE, normalization=name)
    for recurrence in KERNELS:
        yield one(recurrence, ONE, shape="packed")
        yield one(recurrence, ODD, shape="odd")
    yield from _cases([(MEASURED, USUAL)], GATED, [ONE], hopper=True, shape="fused", directions=["backward"])


def _some_portable() -> Iterator[Case]:
    everywhere = PLACES[tuple(TARGETS)]
    places, directions = cycle(everywhere), cycle(DIRECTIONS)
    yield from _cases(everywhere, GATED, [2, WIDE[0]])
    yield from _cases(everywhere, ["bdlru"], (2, TOKEN[-1]), shape="token", directions=["forward"])
    for place, recurrence in zip(everywhere, cycle(GATED), strict=False):
        yield from _cases([place], [recurrence], [2], shape="chunks", directions=[next(directions)])
    for recurrence, m in (("bdlru", 2), ("hlru", 2), ("hlru", SIZES[-1])):  # three kernels of summaries
        usual = [(target, USUAL) for target in TARGETS]
        yield from _cases(usual, [recurrence], [m], shape="chunks", directions=["forward"])
    for direction, recurrence in product(DIRECTIONS, KERNELS):
        yield from _cases([next(places)], [recurrence], [ONE], shape="packed", directions=[direction])
        for name in SOME if recurrence in GATED else ():
            yield from _cases([next(places)], [recurrence], [ONE], normalization=name, directions=[direction])
