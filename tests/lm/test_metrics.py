"""Spikes are found, steps that are not finite are counted, and the state goes through a checkpoint."""

from __future__ import annotations

import math
import random

import pytest
import torch

from statemix.lm.metrics import Meter, SpikeDetector, summarize, utilization


def steps(count=200, spike=None, broken=()):
    draw = random.Random(0)
    losses = [5 - 0.01 * step + draw.gauss(0, 0.02) for step in range(count)]
    if spike is not None:
        losses[spike] += 2.0
    return [
        (math.nan if k in broken else loss, math.inf if k in broken else 1.0) for k, loss in enumerate(losses)
    ]


def test_an_even_training_has_no_spikes():
    assert summarize(steps(), 1, SpikeDetector())[2:] == ([], [])


def test_a_spike_is_found_and_does_not_hide_the_next():
    made = steps(spike=120)
    made[130] = (made[130][0] + 2.0, 1.0)
    window = summarize(made, 1, SpikeDetector())
    assert window.spikes == [121, 131]


def test_steps_that_are_not_finite_are_counted_and_left_out():
    detector = SpikeDetector()
    window = summarize(steps(10, broken=(3, 4)), 1, detector)
    assert window.skipped == [4, 5] and detector.state["skipped"] == 2 and detector.state["running"] == 0
    assert math.isfinite(window.loss) and window.norm == 1.0
    window = summarize([(math.nan, math.nan)] * 3, 11, detector)
    assert window[:2] == (None, None) and detector.state["running"] == 3


def test_a_detector_goes_on_where_it_was():
    made = steps(spike=150)
    whole, first = SpikeDetector(), SpikeDetector()
    summarize(made, 1, whole)
    summarize(made[:100], 1, first)
    second = SpikeDetector(first.state)
    assert summarize(made[100:], 101, second).spikes == [151]
    assert second.state == whole.state


def test_the_meter_keeps_a_step_s_mean_over_its_micro_batches():
    meter = Meter(torch.device("cpu"))
    for loss, norm in ((1.0, 3.0), (2.0, 4.0)):
        meter.add(torch.tensor(loss), 0.5)
        meter.add(torch.tensor(loss + 1), 0.5)
        meter.norm = torch.tensor(norm)
        meter.end_step()
    assert len(meter) == 2
    assert meter.drain() == [(1.5, 3.0), (2.5, 4.0)]
    assert len(meter) == 0 and meter.drain() == []


def test_utilization_counts_a_backward_pass_as_two_forward_passes():
    assert utilization(1000.0, 10, 60_000.0) == pytest.approx(0.5)
