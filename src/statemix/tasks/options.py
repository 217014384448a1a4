"""The options of a task: what each may be, its default, and the error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OptionValue = int | float | str
"""What an option may hold; booleans are not integers here."""


@dataclass(frozen=True)
class IntOption:
    """A whole number from `low` to `high` (no upper bound if None)."""

    default: int
    low: int
    high: int | None = None
    meaning: str = ""

    def expected(self) -> str:
        """The words an error ends with."""
        if self.high is None:
            return f"an integer of at least {self.low}"
        return f"an integer from {self.low} to {self.high}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be this option."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class FractionOption:
    """A number from 0 to 1, both included."""

    default: float
    meaning: str = ""

    def expected(self) -> str:
        """The words an error ends with."""
        return "a number from 0 to 1"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be this option."""
        return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0


@dataclass(frozen=True)
class ChoiceOption:
    """One of a few words."""

    default: str
    choices: tuple[str, ...]
    meaning: str = ""

    def expected(self) -> str:
        """The words an error ends with."""
        return "one of " + ", ".join(map(repr, self.choices))

    def accepts(self, value: object) -> bool:
        """Whether `value` may be this option."""
        return isinstance(value, str) and value in self.choices


Option = IntOption | FractionOption | ChoiceOption


def resolve(task: str, known: Mapping[str, Option], given: Mapping[str, object]) -> dict[str, OptionValue]:
    """Every known option with the value given for it, or its default, in the order of `known`.

    Errors: ValueError for a name that is not known, and for a value that the option does not accept.
    """
    for name in given:
        if name not in known:
            raise ValueError(f"{task}.{name}: unknown option, expected one of {', '.join(known)}")
    resolved: dict[str, OptionValue] = {}
    for name, option in known.items():
        value = given.get(name, option.default)
        if not option.accepts(value):
            raise ValueError(f"{task}.{name}: got {value!r}, expected {option.expected()}")
        assert isinstance(value, int | float | str)
        resolved[name] = float(value) if isinstance(option, FractionOption) else value
    return resolved
