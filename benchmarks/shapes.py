"""Measured shapes: how they are written on a command line, and the bytes that a scan of each must move."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

RECURRENCES = ("bdlru", "hlru", "affine")


class ScanShape(NamedTuple):
    """A recurrence with block size or order m, on B sequences of T steps and N blocks or channels; rows of softmax
    gates, soft or hard."""

    recurrence: str
    m: int
    batch: int
    length: int
    blocks: int
    hard: bool = False

    def dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of the gates and of the values."""
        values = (self.batch, self.length, self.blocks, *(() if self.recurrence == "hlru" else (self.m,)))
        return (*values, self.m + (self.recurrence != "affine")), values

    def bytes(self, element: int) -> dict[str, int]:
        """The least that each pass moves, for numbers of `element` bytes.

        Forward reads gates and values and writes states. Backward reads gates, values, states and the states' gradient
        and writes the gradients of gates and values; that of an affine recurrence needs no values.
        """
        gates, values = (element * math.prod(dims) for dims in self.dims())
        forward = gates + 2 * values
        backward = 2 * gates + (3 if self.recurrence == "affine" else 4) * values
        return {"forward": forward, "backward": backward, "both": forward + backward}

    def __str__(self) -> str:
        return f"{self.recurrence}:{self.m} {self.batch}×{self.length}×{self.blocks}" + " hard" * self.hard


def check_positive(**sizes: int | None) -> None:
    """ValueError naming the first size below 1; None is no size."""
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name}: got {size}, expected at least 1")


def parse_numbers(option: str, text: str) -> list[int]:
    """ "1,1000" -> whole numbers of at least 1; ValueError naming the option."""
    numbers = _numbers(text.split(","))
    if not numbers:
        raise ValueError(f"{option}: got {text!r}, expected whole numbers of at least 1, such as 1,1000")
    return numbers


def parse_named(
    option: str, text: str, names: Iterable[str], *, blocks: bool = False
) -> list[tuple[str, list[int]]]:
    """ "bdlru:4,hlru:4:1024" -> names with m and, if `blocks` may follow, N. ValueError naming a wrong part."""
    found = []
    for part in map(str.strip, text.split(",")):
        name, *rest = part.split(":")
        numbers = _numbers(rest)
        if name not in names or not 1 <= len(numbers) <= 1 + blocks:
            known = ", ".join(f"{name}:m" for name in names) + (" or the same with :N" if blocks else "")
            raise ValueError(f"{option}: got {part!r}, expected {known}")
        found.append((name, numbers))
    return found


def _numbers(parts: list[str]) -> list[int]:
    """Whole numbers from 1 on; an empty list if one part is something else."""
    parts = [part.strip() for part in parts]
    return [int(part) for part in parts] if all(part.isdecimal() and int(part) for part in parts) else []


def parse_sizes(text: str) -> list[tuple[int, int, int]]:
    """ "8x2048x1024,1x65536x1024" -> [(B, T, H)]. ValueError naming a wrong part."""
    sizes = []
    for part in map(str.strip, text.split(",")):
        try:
            batch, length, hidden = _numbers(part.split("x"))
        except ValueError:
            raise ValueError(f"sizes: got {part!r}, expected BxTxH, such as 8x2048x1024") from None
        sizes.append((batch, length, hidden))
    return sizes


def parse_shapes(text: str, sizes: list[tuple[int, int, int]], blocks: int | None = None) -> list[ScanShape]:
    """ "bdlru:4,hlru:4,hlru:4:1024" at every size -> shapes. ValueError naming a wrong part.

    N is the third number of a part, else `blocks`, else H / m rounded down.
    """
    shapes = []
    for batch, length, hidden in sizes:
        for recurrence, numbers in parse_named("shapes", text, RECURRENCES, blocks=True):
            m, n = numbers[0], numbers[1] if len(numbers) == 2 else blocks or hidden // numbers[0]
            if n < 1:
                raise ValueError(f"shapes: got {recurrence}:{m}, expected m of at most H = {hidden}")
            shapes.append(ScanShape(recurrence, m, batch, length, n))
    return shapes
