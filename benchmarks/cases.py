"""What shapes are measured, the bytes that each must move, and how shapes are written on a command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

DEFAULT_CASES = "bdlru:1,bdlru:2,bdlru:4,bdlru:8,hlru:4"


class Form(NamedTuple):
    """How a recurrence uses memory: for one value, the numbers that each pass must move at least once.

    `inner` are the dimensions of the values after [B, T, N], `columns` the length of a row of gates.
    """

    inner: Callable[[int], tuple[int, ...]]
    columns: Callable[[int], int]
    forward: Callable[[int], int]
    backward: Callable[[int], int]


FORMS: dict[str, Form] = {
    "bdlru": Form(lambda m: (m,), lambda m: m + 1, lambda m: m + 3, lambda m: 2 * m + 6),
    "hlru": Form(lambda m: (), lambda m: m + 1, lambda m: m + 3, lambda m: 2 * m + 6),
    "affine": Form(lambda m: (m,), lambda m: m, lambda m: m + 2, lambda m: 2 * m + 3),
}
"""Forward reads gates and values and writes states. Backward reads gates, values, states and the states' gradient
and writes the gradients of gates and values; that of an affine recurrence needs no inputs."""


class Case(NamedTuple):
    """One measured shape: a recurrence and its sizes."""

    recurrence: str
    m: int
    batch: int = 32
    length: int = 256
    blocks: int = 32

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the gates and of the values."""
        form = FORMS[self.recurrence]
        values = (self.batch, self.length, self.blocks, *form.inner(self.m))
        return (*values, form.columns(self.m)), values

    @property
    def width(self) -> int:
        """Values of one step of one sequence."""
        return self.blocks * (self.m if FORMS[self.recurrence].inner(self.m) else 1)

    def bytes(self, element: int) -> dict[str, int]:
        """The least that each pass moves, and what the gates take, for numbers of `element` bytes."""
        form, unit = FORMS[self.recurrence], self.batch * self.length * self.width * element
        passes = {"forward": unit * form.forward(self.m), "backward": unit * form.backward(self.m)}
        return passes | {"both": sum(passes.values()), "gates": unit * form.columns(self.m)}


def check_sizes(**sizes: int) -> None:
    """ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: got {size}, expected at least 1")


def parse_cases(text: str, **sizes: int) -> list[Case]:
    """ "bdlru:4,hlru:2" -> cases; `sizes` are batch, length and blocks. ValueError names what is wrong."""
    check_sizes(**sizes)
    cases = []
    for part in text.split(","):
        recurrence, _, m = part.strip().partition(":")
        if recurrence not in ("bdlru", "hlru") or not m.isdecimal() or int(m) < 1:
            raise ValueError(
                f"shapes: got {part.strip()!r}, expected bdlru:m or hlru:m, such as {DEFAULT_CASES}"
            )
        cases.append(Case(recurrence, int(m), **sizes))
    return cases


def parse_sizes(text: str) -> list[tuple[int, int, int]]:
    """ "8x2048x1024,1x65536x1024" -> [(B, T, state size)]. ValueError names what is wrong."""
    sizes = []
    for part in text.split(","):
        numbers = part.strip().split("x")
        if len(numbers) != 3 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            raise ValueError(f"sizes: got {part.strip()!r}, expected BxTxH, such as 8x2048x1024")
        batch, length, state = map(int, numbers)
        sizes.append((batch, length, state))
    return sizes


def parse_shapes(text: str, sizes: list[tuple[int, int, int]]) -> list[Case]:
    """ "bdlru:4,hlru:4,hlru:4:1024" at every size -> cases; ValueError names what is wrong.

    N is the state size H divided by m, rounded down, unless a third number gives it.
    """
    cases = []
    for batch, length, state in sizes:
        for part in text.split(","):
            recurrence, *numbers = part.strip().split(":")
            right = all(n.isdecimal() and int(n) > 0 for n in numbers) and len(numbers) in (1, 2)
            if recurrence not in FORMS or not right:
                known = ", ".join(f"{name}:m" for name in FORMS)
                raise ValueError(f"shapes: got {part.strip()!r}, expected {known} or the same with :N")
            m, *given = map(int, numbers)
            blocks = given[0] if given else state // m
            if blocks < 1:
                raise ValueError(f"shapes: got {part.strip()!r}, expected m of at most H = {state}")
            cases.append(Case(recurrence, m, batch, length, blocks))
    return cases
