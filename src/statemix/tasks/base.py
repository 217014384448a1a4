"""What every task shares: options, splits, a call that generates instances, a rendering for people."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from statemix.tasks.automata import Automaton
from statemix.tasks.splits import SMALLEST_BITS, SPLITS, belongs, seeded

IGNORED = -100
"""The target of a position that no loss and no accuracy counts."""


class Examples(NamedTuple):
    """Instances: inputs int64 [count, T] and targets int64 [count, T], IGNORED where there is no target."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Option:
    """One option: a word of `choices`, a fraction from 0 to 1 if the default is a float, else an integer.

    Booleans are no integers. Integers are from `low` to `high` (no upper bound if None); `even` allows even ones alone.
    A default that is a text, a tuple or a mapping stands for any text, a list of texts, or a table by name.
    note: where a bound comes from, shown behind it.
    """

    default: int | float | str | tuple[str, ...] | Mapping[str, Any]
    low: int = 0
    high: int | None = None
    meaning: str = ""
    choices: tuple[str, ...] = ()
    even: bool = False
    note: str = ""

    def expected(self) -> str:
        """The words an error ends with."""
        if self.choices:
            return "one of " + ", ".join(map(repr, self.choices))
        for form, words in _WORDS.items():
            if isinstance(self.default, form):
                return words
        if isinstance(self.default, float):
            return "a number from 0 to 1"
        kind = "an even integer" if self.even else "an integer"
        span = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        return f"{kind} {span}{self.note and f' ({self.note})'}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be this option."""
        if self.choices:
            return value in self.choices
        if isinstance(self.default, tuple):
            return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        for kind in (str, Mapping):
            if isinstance(self.default, kind):
                return isinstance(value, kind)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(self.default, float):
            return 0.0 <= value <= 1.0
        high = math.inf if self.high is None else self.high
        return isinstance(value, int) and self.low <= value <= high and not (self.even and value % 2)


_WORDS: Mapping[type, str] = {str: "a text", tuple: "a list of texts", Mapping: "a table by name"}
"""What is expected of an option, by the type of its default."""


class Task(ABC):
    """A synthetic task. Subclasses say what they accept (`OPTIONS`), draw rows and name their tokens.

    vocab_size: tokens of inputs and targets are 0 … vocab_size - 1. length: the default length. backbone:
    "language_model" or "autoencoder". options: every option with its value, the length among them.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    backbone: ClassVar[str] = "language_model"
    OPTIONS: ClassVar[Mapping[str, Option]]

    vocab_size: int
    marks: Mapping[int, tuple[str, str]]
    """Text and style of the input tokens that are not shown as cyan numbers; `_prepare` may set it."""

    def __init__(self, **options: Any) -> None:
        """Options by name; ValueError for one that is unknown or out of range."""
        options = self.resolve(options)
        for name in options.keys() - self.OPTIONS:
            raise ValueError(f"{self.name}.{name}: unknown option, expected one of {', '.join(self.OPTIONS)}")
        self.options: dict[str, Any] = {}
        for name, option in self.OPTIONS.items():
            value = options.get(name, option.default)
            if not option.accepts(value):
                raise ValueError(f"{self.name}.{name}: got {value!r}, expected {option.expected()}")
            self.options[name] = float(value) if isinstance(option.default, float) else value
        self.length = self.integer("length")
        self.length_option = self.OPTIONS["length"]
        """What a length may be; `_prepare` may narrow it."""
        self.marks = {}
        if "vocab_size" in self.options:
            self.vocab_size = self.integer("vocab_size")
        with torch.device("cpu"):
            self._prepare()
        self.check_length(self.length)

    @classmethod
    def resolve(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options that need no file any more: what a file says stands in its place. A run keeps these."""
        return dict(options)

    def automaton(self) -> Automaton:
        """The automaton whose outputs are the targets. ValueError for a task that is none."""
        raise ValueError(
            f"task: got {self.name!r}, which is no automaton, expected one that tracks a finite state"
        )

    def integer(self, name: str) -> int:
        """The value of a whole-number option."""
        return int(self.options[name])

    def _prepare(self) -> None:  # noqa: B027 - a task may have nothing to prepare
        """Set whatever follows from the options, `vocab_size` unless it is one of them."""

    def _bits(self, length: int) -> float:
        """The size of the space: -log2 of the probability of the likeliest inputs row, or a lower bound.

        That of uniform tokens, unless a task says otherwise.
        """
        return length * math.log2(self.vocab_size)

    @abstractmethod
    def _draw(self, count: int, length: int, training: bool, generator: torch.Generator) -> Examples:
        """`count` instances, without regard to splits."""

    def check_length(self, length: object) -> int:
        """`length` if the task has instances of it; otherwise ValueError."""
        if not self.length_option.accepts(length):
            raise ValueError(f"{self.name}.length: got {length!r}, expected {self.length_option.expected()}")
        return length  # type: ignore[return-value]

    def input_length(self, length: int | None = None) -> int:
        """T, the number of columns of the inputs and targets of instances of `length` (None: the default)."""
        return self.length if length is None else self.check_length(length)

    def divides(self, length: int | None = None) -> bool:
        """Whether the splits are disjoint at `length` (None: the default)."""
        return self._bits(self.length if length is None else self.check_length(length)) >= SMALLEST_BITS

    @property
    def overlap(self) -> str:
        """One sentence: can train, validation and test share instances at the default length?"""
        return self.overlap_at(self.length)

    def overlap_at(self, length: int) -> str:
        """`overlap` for instances of another length."""
        what = (
            "never share an instance: a hash of its inputs gives every instance to one split, 80/10/10."
            if self.divides(length)
            else f"can share instances: there are fewer than {2**SMALLEST_BITS:.0f} equally likely ones."
        )
        return f"At length {length} train, validation and test {what}"

    def generate(
        self, count: int, *, length: int | None = None, seed: int = 0, split: str = "train"
    ) -> Examples:
        """`count` instances: inputs and targets int64 [count, T] on the CPU, T = input_length(length).

        The same for the same options, length, seed and split on every call (a greater count adds rows at the
        end); the global random state is neither used nor changed. Rows may repeat within a split; `overlap`
        says whether they may between splits. Errors: ValueError naming count, length, seed or split.
        """
        if not Option(0).accepts(count):
            raise ValueError(f"count: got {count!r}, expected an integer of at least 0")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"seed: got {seed!r}, expected an integer")
        if split not in SPLITS:
            raise ValueError(f"split: got {split!r}, expected one of {', '.join(map(repr, SPLITS))}")
        length = self.length if length is None else self.check_length(length)
        options = {name: value for name, value in self.options.items() if name != "length"}
        generator = seeded(self.name, options, length, seed, split)
        with torch.device("cpu"):
            return self._collect(count, length, split, generator)

    def _collect(self, count: int, length: int, split: str, generator: torch.Generator) -> Examples:
        """Draw chunks of a size that depends on the length alone, and keep the rows of the split."""
        rows = max(16, min(1024, 2**20 // length))
        divided, parts, kept = self.divides(length), list[Examples](), 0
        for _ in range(100 * (count // rows + 1)):
            part = self._draw(rows, length, split == "train", generator)
            if divided:
                mine = belongs(part.inputs, split)
                part = Examples(part.inputs[mine], part.targets[mine])
            parts.append(part)
            kept += len(part.inputs)
            if kept >= count:
                inputs, targets = (torch.cat(column)[:count] for column in zip(*parts, strict=True))
                return Examples(inputs.contiguous(), targets.contiguous())
        raise RuntimeError(f"{self.name}: too few of the rows drawn at length {length} belong to {split!r}")

    def look(self, token: int) -> tuple[str, str]:
        """An input token as a person reads it, and its style (one of rich's)."""
        return self.marks.get(token, (str(token), "cyan"))

    def symbol(self, token: int) -> str:
        """An input token as a person reads it."""
        return self.look(token)[0]

    def answer_symbol(self, token: int) -> str:
        """A target token as a person reads it."""
        return self.symbol(token)

    def render(
        self, inputs_row: Tensor | Sequence[int], targets_row: Tensor | Sequence[int]
    ) -> list[tuple[str, str]]:
        """One instance as (text, style) pieces, to be joined without separator; styles are rich's.

        inputs_row, targets_row: [T]. Each input is followed by an arrow and its target if it has one; inputs
        without a target are dim.
        """
        inputs, targets = ([int(token) for token in row] for row in (inputs_row, targets_row))
        if len(inputs) != len(targets):
            raise ValueError(
                f"targets_row: got {len(targets)} positions, expected {len(inputs)} as in inputs_row"
            )
        pieces: list[tuple[str, str]] = []
        for token, target in zip(inputs, targets, strict=True):
            text, style = self.look(token)
            if target == IGNORED:
                pieces += [(text, f"dim {style}"), (" ", "")]
            else:
                pieces += [(text, style), ("→", "dim"), (self.answer_symbol(target), "bold green"), (" ", "")]
        return pieces[:-1]
