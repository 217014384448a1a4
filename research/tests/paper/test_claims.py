"""Verdicts by the rule of the page, on numbers made up."""

from __future__ import annotations

import pytest
from statemix_research.paper.claims import claims_table, judge
from statemix_research.paper.experiment import Claim
from statemix_research.paper.selection import frame_of


def frame(**values):
    return frame_of(
        {
            "model": model,
            "task": "t",
            "lr": 0.1,
            "seed": seed,
            "accuracy": value,
            "validation": value,
            "ended": "finished",
        }
        for model, each in values.items()
        for seed, value in enumerate(each)
    )


EQUAL = Claim("A: 0.9", {"model": "A"}, number=0.9)
ABOVE = Claim("A above B", {"model": "A"}, "above", against={"model": "B"})

CASES = {
    "near": (EQUAL, {"A": [0.90, 0.91, 0.92]}, "reproduced"),
    "far": (EQUAL, {"A": [0.5, 0.51, 0.6]}, "not reproduced"),
    "noisy is not agreement": (EQUAL, {"A": [0.1, 0.9, 1.0]}, "not separable"),
    "too few": (EQUAL, {"A": [0.9, 0.9]}, "not separable"),
    "none": (EQUAL, {"B": [0.9, 0.9, 0.9]}, "not separable"),
    "above": (ABOVE, {"A": [0.8, 0.82, 0.81], "B": [0.7, 0.71, 0.72]}, "reproduced"),
    "below": (ABOVE, {"A": [0.6, 0.62, 0.61], "B": [0.7, 0.71, 0.72]}, "not reproduced"),
    "overlap": (ABOVE, {"A": [0.6, 0.9, 0.7], "B": [0.7, 0.71, 0.72]}, "not separable"),
}


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name):
    claim, values, verdict = CASES[name]
    assert judge(claim, frame(**values)).verdict == verdict


def test_a_mean_over_fewer_tasks_than_the_paper_is_no_value():
    claim = Claim("mean", {"model": "A", "task": ["t", "u"]}, number=0.9, across="task")
    assert judge(claim, frame(A=[0.9, 0.9, 0.9])).n == 0


def test_a_line_tells_n_and_the_interval():
    line = claims_table([judge(EQUAL, frame(A=[0.90, 0.91, 0.92]))])[2:]
    assert line == ["| A: 0.9 | 0.9 | 0.910 | 3 | 0.900 to 0.920 | *reproduced* | arXiv 2602.12021 |"]
