"""Deterministic finite automata: from a table of transitions, from generators of a group, from a file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_STATES = 10**5
"""Elements of a group that are listed, and points that a permutation moves."""

KEYS = ("table", "start", "accepting", "generators")
"""What a file may hold."""

Permutation = str | Sequence[int]
"""Cycles of 1 … n such as "(1 2)(3 4)", or the images of 0 … n - 1."""


class Automaton:
    """A deterministic finite automaton with an output at every state (a Moore machine).

    $q_t = \\delta(q_{t-1}, x_t)$ from $q_0$ = start; the answer at t is $outputs[q_t]$.

    Args:
        table: int64 [states, symbols], δ: the next state.
        start: The first state.
        outputs: int64 [states], the answers; by default the states themselves. IGNORED where there is none.
        states: Their names; by default their numbers.
        symbols: The names of the symbols; by default their numbers.

    Raises:
        ValueError: A state is out of range, or the numbers of names, outputs and rows differ.

    Example:
        >>> parity = Automaton(torch.tensor([[0, 1], [1, 0]]))
        >>> parity.answers(torch.tensor([[1, 0, 1]]))
        tensor([[1, 1, 0]])
    """

    def __init__(
        self,
        table: Tensor | Sequence[Sequence[int]],
        start: int = 0,
        outputs: Tensor | Sequence[int] | None = None,
        states: Sequence[str] = (),
        symbols: Sequence[str] = (),
    ) -> None:
        self.table = _check_numbers(torch.as_tensor(table, dtype=torch.int64, device="cpu"), start)
        count, width = self.table.shape
        self.start = start
        self.outputs = torch.arange(count) if outputs is None else torch.as_tensor(outputs, device="cpu")
        self.states = tuple(states) or tuple(map(str, range(count)))
        self.symbols = tuple(symbols) or tuple(map(str, range(width)))
        for name, expected in (("outputs", count), ("states", count), ("symbols", width)):
            if (came := len(getattr(self, name))) != expected:
                raise ValueError(f"{name}: got {came} of them, expected {expected} as in table")
        self._flat = self.table.flatten()

    def __repr__(self) -> str:
        return f"Automaton({len(self.states)} states, {len(self.symbols)} symbols)"

    @classmethod
    def from_table(
        cls, table: Mapping[str, Mapping[str, str]], start: str, accepting: Iterable[str] | None = None
    ) -> Automaton:
        """The automaton of a table state -> symbol -> next state. Symbols are in the order of the first row.

        accepting: states whose answer is 1, that of all others 0; None: the answers are the states.
        Errors: ValueError for a table that is not total, an unknown state or symbol, a start that is no state.

        >>> ends_in_b = {"no": {"a": "no", "b": "yes"}, "yes": {"a": "no", "b": "yes"}}
        >>> Automaton.from_table(ends_in_b, "no", ["yes"]).answers(torch.tensor([[0, 1, 1]]))
        tensor([[0, 1, 1]])
        """
        states = tuple(table)
        rows = [table[name] for name in states]
        for name, row in zip(states, rows, strict=True):
            if not isinstance(row, Mapping):
                raise ValueError(f"table.{name}: got {row!r}, expected a next state for every symbol")
        symbols = tuple(rows[0]) if rows else ()
        if not symbols:
            raise ValueError(f"table: got {dict(table)!r}, expected at least one state and one symbol")
        for name, row in zip(states, rows, strict=True):
            _check_row(name, row, symbols, states)
        if start not in states:
            came = repr(start) if start else "none"
            raise ValueError(f"start: got {came}, expected one of {_listed(states)}")
        number = {name: i for i, name in enumerate(states)}
        outputs = None
        if accepting is not None:
            for name in (accepted := list(accepting)):
                if name not in number:
                    raise ValueError(f"accepting: got {name!r}, expected states out of {_listed(states)}")
            outputs = torch.tensor([int(name in accepted) for name in states])
        moves = [[number[row[symbol]] for symbol in symbols] for row in rows]
        return cls(torch.tensor(moves), number[start], outputs, states, symbols)

    @classmethod
    def from_generators(cls, generators: Mapping[str, Permutation]) -> Automaton:
        """The group that permutations generate: a state an element, from the identity; a symbol a generator.

        generators: by name, each as cycles "(1 2)(3 4)" or as the images of 0 … n - 1. A symbol multiplies from the
        right, (p·q)[i] = p[q[i]]: the newer factor acts first, as in the task "permutation".
        Errors: ValueError for what is no permutation, and for a group of more than 100 000 elements.

        >>> s3 = Automaton.from_generators({"swap": "(1 2)", "turn": "(1 2 3)"})
        >>> s3.table.shape, s3.states
        (torch.Size([6, 2]), ('e', '(1 2)', '(1 2 3)', '(2 3)', '(1 3)', '(1 3 2)'))
        """
        if not generators:
            raise ValueError("generators: got none, expected at least one permutation")
        found = {name: images(name, one) for name, one in generators.items()}
        n = max(map(len, found.values()))
        factors = [one + tuple(range(len(one), n)) for one in found.values()]
        identity = tuple(range(n))
        number, elements, table = {identity: 0}, [identity], list[list[int]]()
        for element in elements:  # grows as products are found
            products = [tuple(element[i] for i in factor) for factor in factors]
            for product in products:
                if product not in number:
                    number[product] = len(elements)
                    elements.append(product)
            if len(elements) > MAX_STATES:
                raise ValueError(
                    f"generators: got a group of more than {MAX_STATES} elements, expected at most that"
                )
            table.append([number[product] for product in products])
        return cls(torch.tensor(table), 0, None, tuple(map(cycle_notation, elements)), tuple(found))

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Automaton:
        """The automaton of what a file holds: `table`, `start` and `accepting`, or `generators`."""
        for name in description:
            if name not in KEYS:
                raise ValueError(f"{name}: unknown, expected {', '.join(KEYS[:-1])}, or {KEYS[-1]}")
        generators = description.get("generators")
        if generators:
            for name in ("table", "start", "accepting"):
                if description.get(name):
                    raise ValueError(f"{name}: got one beside generators, expected a table or generators")
            return cls.from_generators(generators)
        if not description.get("table"):
            raise ValueError("table: got none, expected a table of transitions, or generators")
        return cls.from_table(
            description["table"], description.get("start", ""), description.get("accepting") or None
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Automaton:
        """The automaton of a TOML or JSON file, whose ending says which it is.

        Errors: ValueError for one that is neither or describes no automaton, OSError if it cannot be read.
        """
        try:
            return cls.from_description(read_description(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def trace(self, words: Tensor) -> Tensor:
        """The states after each symbol: int64 [count, T] of words int64 [count, T]."""
        state = torch.full(words.shape[:1], self.start, dtype=torch.int64)
        width, traced = self.table.shape[1], torch.empty_like(words.T)
        for t, symbols in enumerate(words.T):
            state = traced[t] = self._flat[state * width + symbols]
        return traced.T.contiguous()

    def answers(self, words: Tensor) -> Tensor:
        """The outputs after each symbol: int64 [count, T] of words int64 [count, T]."""
        return self.outputs[self.trace(words)]

    @property
    def is_group(self) -> bool:
        """Whether every symbol permutes the states."""
        return bool((self.table.sort(dim=0).values == torch.arange(len(self.table))[:, None]).all())


def _check_numbers(table: Tensor, start: int) -> Tensor:
    """The table of transitions, its states and the start in range."""
    if table.dim() != 2 or not table.numel():
        raise ValueError(f"table: got shape {list(table.shape)}, expected [states, symbols], none of them 0")
    low, high, count = int(table.min()), int(table.max()), len(table)
    if low < 0 or high >= count:
        raise ValueError(f"table: got states from {low} to {high}, expected 0 to {count - 1}")
    if not 0 <= start < count:
        raise ValueError(f"start: got {start}, expected a state from 0 to {count - 1}")
    return table


def _check_row(name: str, row: Mapping[str, str], symbols: tuple[str, ...], states: tuple[str, ...]) -> None:
    """One state's row has every symbol of the first row, no other, and leads to states."""
    for symbol in symbols:
        if symbol not in row:
            raise ValueError(f"table.{name}: got no next state for {symbol!r}, expected one for every symbol")
    for symbol, state in row.items():
        if symbol not in symbols:
            raise ValueError(
                f"table.{name}: got symbol {symbol!r}, expected those of the first row: {_listed(symbols)}"
            )
        if state not in states:
            raise ValueError(f"table.{name}.{symbol}: got state {state!r}, expected one of {_listed(states)}")


def _listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, for a message."""
    return ", ".join(map(repr, names[:most])) + (
        f" and {len(names) - most} more" if len(names) > most else ""
    )


def read_description(path: str | Path) -> dict[str, Any]:
    """What a TOML or JSON file says of an automaton."""
    path = Path(path)
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"file: got {str(path)!r}, expected a name that ends in .toml or .json")
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else _toml(path)
    except ValueError as error:  # of both parsers, and of text that is no UTF-8
        raise ValueError(f"file: {path} is not {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"file: {path} holds a {type(content).__name__}, expected {', '.join(KEYS)} by name")
    return content


def _toml(path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover - what 3.11 took into the standard library
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


CYCLES = re.compile(r"\s*(e|(\(\s*\d+(?:[\s,]+\d+)*\s*\)\s*)+)\s*")


def images(name: str, permutation: Permutation) -> tuple[int, ...]:
    """The images of 0 … n - 1 of a permutation given as cycles of 1 … n or as such images; `name` is for messages."""
    expected = 'a permutation such as "(1 2)(3 4)" or [1, 0, 3, 2]'
    if not isinstance(permutation, str):
        found: tuple[Any, ...] = tuple(permutation) if isinstance(permutation, Sequence) else ()
        if not found or not all(type(i) is int for i in found) or sorted(found) != list(range(len(found))):
            raise ValueError(f"generators.{name}: got {permutation!r}, expected {expected}")
        return found
    cycles = [
        [int(i) - 1 for i in re.findall(r"\d+", cycle)] for cycle in re.findall(r"\(([^)]*)\)", permutation)
    ]
    points = [i for cycle in cycles for i in cycle]
    if (
        not CYCLES.fullmatch(permutation)
        or len(set(points)) < len(points)
        or not 0 <= min(points, default=0) <= max(points, default=0) < MAX_STATES
    ):
        raise ValueError(f"generators.{name}: got {permutation!r}, expected {expected}")
    moved = {i: j for cycle in cycles for i, j in zip(cycle, [*cycle[1:], cycle[0]], strict=True)}
    return tuple(moved.get(i, i) for i in range(max(points, default=0) + 1))


def cycle_notation(permutation: Sequence[int]) -> str:
    """A permutation of 0 … n - 1 as disjoint cycles of 1 … n; "e" for the identity."""
    text, seen = "", set[int]()
    for start in range(len(permutation)):
        cycle, at = [], start
        while at not in seen:
            seen.add(at)
            cycle.append(str(at + 1))
            at = permutation[at]
        if len(cycle) > 1:
            text += f"({' '.join(cycle)})"
    return text or "e"
