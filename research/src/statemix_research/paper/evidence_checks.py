"""What `statemix rivals --out` found, for the rivals of a page: their numbers count where their gradients are right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from statemix_research.paper.evidence_tables import NONE
from statemix_research.paper.markdown import code, markdown, plain
from statemix_research.sweeps.models import MODELS

VERDICTS = {True: "ok", False: "**WRONG**"}


class Checks(NamedTuple):
    """A file of comparisons with a float64 loop: where they were made, and one entry for each operation."""

    path: Path
    hardware: str
    entries: list[dict[str, Any]]


def read_checks(path: Path) -> Checks:
    """The file of `statemix rivals --out`. Errors: OSError; ValueError for a file that is another."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        found = Checks(path, str(record["environment"]["device"]), list(record["checks"]))
        for entry in found.entries:
            _line(entry)
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"checks: {path} is not a file of `statemix rivals --out`") from None


def rivals_in(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The mixers' names of the rivals that rows are about."""
    names = {model.label: model.mixer["name"] for model in MODELS.values() if not model.ours}
    return list(dict.fromkeys(names[row["model"]] for row in rows if row.get("model") in names))


def checked(rows: Sequence[Mapping[str, Any]], checks: Checks | None) -> Iterator[str]:
    """The lines of a page that say which rivals' gradients were compared, and how it went; none without rivals."""
    rivals = rivals_in(rows)
    if not rivals:
        return
    if checks is None:
        yield "- The rivals' gradients were not compared with float64 loops (`statemix rivals --out`, `--checks`)."
        return
    mine = [entry for entry in checks.entries if entry["rival"] in rivals]
    wrong = dict.fromkeys(entry["rival"] for entry in mine if not entry["passed"])
    missing = [name for name in rivals if name not in {entry["rival"] for entry in mine}]
    here = {row["hardware"] for row in rows if row.get("hardware")}
    where = plain(checks.hardware) + (
        "" if not here or checks.hardware in here else ", not where these runs were made,"
    )
    found = "outputs and gradients are right."
    if wrong:
        found = f"WRONG, their numbers do not count: {', '.join(wrong)}."
    if missing:
        found += f" Not compared: {', '.join(missing)}."
    yield f"- The rivals' operations against a float64 loop on {where} ({code(checks.path)}): {found}"
    yield ""
    yield "<details><summary>Relative errors of the rivals' operations</summary>"
    yield ""
    columns = ["rival", "operation", "computed by", "dtype", "outputs", "worst gradient", "allowed", ""]
    yield from markdown(columns, [_line(entry) for entry in mine])
    yield ""
    yield "</details>"


def _line(entry: Mapping[str, Any]) -> list[str]:
    errors = entry["gradient_errors"].values()
    worst = None if None in errors else max(errors, default=None)
    return [
        *(plain(entry[key] or "failed") for key in ("rival", "operation", "runs", "dtype")),
        _error(entry["output_error"]), _error(worst), f"{entry['bound']:.0e}", VERDICTS[entry["passed"]],
    ]  # fmt: skip


def _error(error: float | None) -> str:
    return NONE if error is None else f"{error:.1e}"
