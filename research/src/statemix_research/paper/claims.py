"""What the paper claims, beside what the runs say, and a verdict by a rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd
from statemix_research.paper.experiment import Claim
from statemix_research.paper.selection import Average, average, choose, matching, readable
from statemix_research.paper.tables import markdown, plain

TOLERANCE = 0.05
"""Distance from the paper's number that counts as equal to it."""

MIN_RUNS = 3
"""With fewer runs nothing is separable."""

VERDICTS = ("reproduced", "not reproduced", "not separable")

RULE = f"""\
Each claim is compared with the runs of this repository, size, learning rate and, where the claim is of "BD-LRU", m
chosen on validation data. The interval is the 95 % bootstrap interval of the mean: seeds are resampled within each task
{"10 000"} times, and the tasks' means averaged. Of timings it is the range between the quartiles of the samples.

- A claim of a **number** is *reproduced* when the whole interval lies within ± {TOLERANCE} of the paper's number, and
  *not reproduced* when all of the interval lies outside.
- A claim that one value is **above** or **below** another (a number, or other runs) is *reproduced* when the whole
  interval of the difference is on the claimed side (or 0), and *not reproduced* when all of it is on the other side.
- Everything else is *not separable*, as is whatever has fewer than {MIN_RUNS} runs in one of its tasks: the data do not
  decide. With three seeds the bootstrap interval is that from the smallest to the largest, so it is rather too narrow
  than too wide for what further seeds would bring.
"""


def value_of(claim: Claim, where: Mapping[str, Any], frame: pd.DataFrame) -> Average | None:
    """The value of the runs `where`, None without runs in all that the claim averages."""
    across = [claim.across] if claim.across else []
    chosen, wanted = choose(matching(frame, where), across, claim.over, claim.value), where.get(claim.across)
    return average(chosen, across, claim.value, len(wanted) if isinstance(wanted, list) else 1)


class Judged(NamedTuple):
    """A claim beside the runs; the texts of a line of the page."""

    claim: Claim
    value: str
    n: int
    interval: str
    verdict: str


def judge(claim: Claim, frame: pd.DataFrame) -> Judged:
    """The verdict of the rule (`RULE`)."""
    found = value_of(claim, claim.where, frame)
    other = value_of(claim, claim.against, frame) if claim.against is not None else None
    if found is None or (claim.against is not None and other is None):
        return Judged(claim, "–", 0, "–", "not separable")
    shown = readable(found.mean)
    if other is not None:
        shown, found = f"{shown} against {readable(other.mean)}", found.less(other)
    low, high = found.interval
    bound = (claim.number or 0.0) if other is None else 0.0
    least, most = {
        "equal": (bound - TOLERANCE, bound + TOLERANCE), "above": (bound, math.inf), "below": (-math.inf, bound),
    }[claim.relation]  # fmt: skip
    verdict = "not separable"
    if found.n >= MIN_RUNS and least <= low and high <= most:
        verdict = "reproduced"
    elif found.n >= MIN_RUNS and (high < least or low > most):
        verdict = "not reproduced"
    interval = f"{readable(low)} to {readable(high)}" + (" (difference)" if other is not None else "")
    return Judged(claim, shown, found.n, interval, verdict)


def claims_table(judged: Iterable[Judged]) -> list[str]:
    """A line for each claim."""
    lines = [
        [
            plain(one.claim.text), _published(one.claim), one.value, str(one.n), one.interval, f"*{one.verdict}*",
            one.claim.source,
        ]
        for one in judged
    ]  # fmt: skip
    return markdown(["claim", "paper", "statemix", "n", "95 % interval", "verdict", "source"], lines)


def _published(claim: Claim) -> str:
    if claim.against is not None:
        return "higher" if claim.relation == "above" else "lower"
    return {"equal": "", "above": "> ", "below": "< "}[claim.relation] + f"{claim.number:g}"
