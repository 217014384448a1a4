"""The options of a task: what each may be, its default, and the error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OptionValue = int | float | str
"""What an option may hold; booleans are not integers here."""


@dataclass(frozen=True)
class Option:
    """One option: a word of `choices`, a fraction from 0 to 1 if the default is a float, else an integer.

    Integers are from `low` to `high` (no upper bound if None); `even` allows even ones alone. note: where a bound
    comes from, shown behind it.
    """

    default: OptionValue
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
        if isinstance(self.default, float):
            return "a number from 0 to 1"
        kind = "an even integer" if self.even else "an integer"
        span = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        return f"{kind} {span}{self.note and f' ({self.note})'}"

    def accepts(self, value: object) -> bool:
        """Whether `value` may be this option."""
        if self.choices:
            return isinstance(value, str) and value in self.choices
        if isinstance(value, bool):
            return False
        if isinstance(self.default, float):
            return isinstance(value, int | float) and 0.0 <= value <= 1.0
        if not isinstance(value, int) or (self.even and value % 2):
            return False
        return self.low <= value and (self.high is None or value <= self.high)


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
        resolved[name] = float(value) if isinstance(option.default, float) else value
    return resolved
