"""What the Hopper kernels are launched with, worked out without a GPU: copies, programs, and the tiles of a relay."""

from __future__ import annotations

import math

import pytest
import torch

from statemix.ops.layout import empty_fast, split_gates_values
from statemix.ops.triton.hopper.config import (
    LOCAL_PASS,
    SINGLE_PASS,
    Call,
    copy_width,
    lanes_per_warp,
    plan_scan,
    plan_summary,
)
from statemix.ops.triton.launch_table import HOPPER, KERNELS

RECURRENCES = ("bdlru", "hlru", "affine")


def call(recurrence, m, *, B=2, T=100, N=24, chunk=None, sequences=None, itemsize=2, fused=False):
    """A call of tensors in the fast format of a GPU, or (fused) side by side."""
    inner, columns = ((N,) if recurrence == "hlru" else (N, m)), m + (recurrence != "affine")
    like = torch.empty(B, T, *inner, columns, device="meta")
    gates, values = empty_fast(like, "gates"), torch.empty(B, T, *inner, device="meta")
    if fused:
        width = (columns + 1) * math.prod(inner)
        gates, values = split_gates_values(torch.empty(B, T, width, device="meta"), inner)
    shapes = (tuple(gates.shape), gates.stride(), tuple(values.shape), values.stride())
    return Call(recurrence, 0, copy_width(recurrence, itemsize, *shapes), sequences, chunk, *shapes)


@pytest.mark.parametrize("m", range(1, 17))
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_lanes_are_whole_blocks_and_copies_stay_inside_them(recurrence, m):
    for itemsize in (2, 4):
        one = call(recurrence, m, itemsize=itemsize)
        lanes = lanes_per_warp(recurrence, m, one.width)
        assert 0 < lanes <= 32
        assert recurrence == "hlru" or lanes % m == 0
        assert one.width * itemsize in (4, 8, 16)
        assert lanes % one.width == 0
        assert all(stride % one.width == 0 for stride in one.gate_strides[:2])


def test_odd_rows_in_half_precision_are_not_copied():
    assert call("bdlru", 3, N=21).width == 0
    assert call("bdlru", 3, N=21, itemsize=4).width == 1
    assert lanes_per_warp("bdlru", 3, 0) == 30


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("m", [1, 3, 4, 16])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_programs_cover_every_channel_of_every_sequence(recurrence, m, fused):
    for (kernels, direction), rows in HOPPER.items():
        if kernels != KERNELS[recurrence]:
            continue
        launch = next(pair for limit, pair in rows.items() if m <= limit)[1]
        for sizes, sequences in (({}, 2), ({"chunk": 40}, 6), ({"B": 1, "sequences": 5}, 5)):
            one = call(recurrence, m, fused=fused, **sizes)
            strides = (77, 88) if direction == "backward" else ()
            plan = plan_scan(one, launch, LOCAL_PASS if "chunk" in sizes else SINGLE_PASS, *strides)
            config, (length, chunk, num_chunks, groups, gb, gt, gj, _, vt) = plan.config, plan.integers
            covered = groups * config.NUM_WARPS * config.LANES
            assert covered - config.NUM_WARPS * config.LANES < config.H <= covered
            assert plan.programs == groups * sequences
            assert (num_chunks - 1) * chunk < length <= num_chunks * chunk
            steps = (one.gate_strides[1], one.gate_strides[-1], one.value_strides[1])
            assert tuple(x * config.VECTOR for x in (gt, gj, vt)) == steps
            assert gb * config.VECTOR == (0 if "sequences" in sizes else one.gate_strides[0])
            if strides:
                rows_read = config.BLOCK_T + config.CARRIED - 1
                assert rows_read <= config.STATE_ROWS < 2 * rows_read
                assert strides == (config.D_GATES_STRIDE, config.D_VALUES_STRIDE)


@pytest.mark.parametrize("length", [1, 7, 64, 65, 1000])
def test_workers_walk_every_step_once_and_in_order(length):
    """The schedule of the relay, as `_worker` has it: tile WORKER + k NUM_WORKERS in round k, whose state the barrier
    of that worker lets through after its predecessor arrived; a wait is for the completion of a phase's parity."""
    for workers, block_t in ((2, 4), (4, 2), (2, 32)):
        rounds = -(-length // (workers * block_t))
        arrivals, walked = [0] * workers, []
        waiting = [(k, worker) for k in range(rounds) for worker in range(workers)]
        while waiting:
            ready = [
                (k, w) for k, w in waiting
                if (k, w) == min(x for x in waiting if x[1] == w)
                # phases completed so far are arrivals; parity p is through once the phase under way has the other
                and (arrivals[w] & 1) != ((k + 1) & 1 if w == 0 else k & 1)
            ]  # fmt: skip
            assert len(ready) == 1, "one worker holds the state"
            (k, worker) = ready[0]
            walked += range((k * workers + worker) * block_t, (k * workers + worker + 1) * block_t)
            arrivals[(worker + 1) % workers] += 1
            waiting.remove((k, worker))
        assert walked[:length] == list(range(length))
        assert len(walked) == rounds * workers * block_t


def test_summaries_check_the_bound_as_often_as_they_say():
    for recurrence in RECURRENCES:
        for m in range(1, 17):
            config = plan_summary(call(recurrence, m, chunk=32), False).config
            assert 32 % config.BOUND_BLOCK_T == 0
            assert config.NUM_STAGES >= 2
