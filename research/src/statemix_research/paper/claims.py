"""What the paper claims, beside what the runs say, and a verdict by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from statemix_research.paper.experiment import Claim
from statemix_research.paper.selection import Summary, bootstrap, choose, matching, readable
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


class Value(NamedTuple):
    """The mean of the runs that a claim is about, resampled means, and the fewest runs in a group."""

    mean: float
    draws: Any
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the draws; of a timing, its quartiles."""
        if len(self.draws) == 2:
            return float(min(self.draws)), float(max(self.draws))
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return float(low), float(high)

    def less(self, other: Value) -> Value:
        """The difference of two independent values."""
        return Value(self.mean - other.mean, self.draws - other.draws[::-1], min(self.n, other.n))


def value_of(claim: Claim, where: Mapping[str, Any], frame: pd.DataFrame) -> Value | None:
    """The value of the runs `where`, None without runs in all that the claim averages."""
    across = [claim.across] if claim.across else []
    chosen = choose(matching(frame, where), across, claim.over, claim.value)
    if chosen.empty:
        return None
    groups = [runs for _, runs in chosen.groupby(across, sort=False)] if across else [chosen]
    wanted = where.get(claim.across)
    if isinstance(wanted, list) and len(groups) < len(wanted):
        return None  # a mean over fewer tasks than the paper's is another number
    if claim.value == "tokens_per_s":
        timing = Summary.of(chosen, claim.value)
        return Value(timing.mean, np.array([timing.low, timing.high]), timing.n)
    values = [list(runs[claim.value].astype(float)) for runs in groups]
    mean = float(np.mean([np.mean(one) for one in values]))
    return Value(mean, bootstrap(values), min(map(len, values)))


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
    least = (
        bound - TOLERANCE if claim.relation == "equal" else bound if claim.relation == "above" else -np.inf
    )
    most = bound + TOLERANCE if claim.relation == "equal" else bound if claim.relation == "below" else np.inf
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
