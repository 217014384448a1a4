"""How a tile's numbers reach the workers of `turns_backward`: by wide copies through shared memory, or one by one.

The inputs of a worker are four pointers: gates, values, states one step earlier and gradients of states, at the step
that its next tile begins with. Tiles are counted from the end: they go back in time.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.turns_common import fetch, load_states, load_steps, read, rings, tile


@gluon.jit
def tile_rings(dtype: tl.constexpr, C: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr,
               VEC: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """A worker's rings: C of gates, and one each of values, gradients and states; none where nothing is copied."""
    if VEC == 0:
        return ()
    else:
        few = rings(dtype, C + 2, S, U * G * 32)
        return few + rings(dtype, 1, S, R * G * 32)


@gluon.jit
def _plan(c0, strides, H: tl.constexpr, LANES: tl.constexpr, W: tl.constexpr, G: tl.constexpr, U: tl.constexpr,
          VEC: tl.constexpr, R: tl.constexpr):  # fmt: skip
    """What the copies of all tiles have in common: of a tile of steps and of its rows of states, the step of each
    number and whether it is used; where the numbers are; the distances between planes and between the worker's
    tiles."""
    gt, gj, vt = strides
    when, source, inside = tile(c0, H, U, LANES, G, VEC)
    when_h, source_h, inside_h = tile(c0, H, R, LANES, G, VEC)
    at = (
        source - when * (gt * VEC),
        source - when * (vt * VEC),
        source - when * H,
        source_h - when_h * H,
    )
    plane = gj.to(tl.int64) * VEC
    onward = (gt.to(tl.int64) * (U * W * VEC), vt.to(tl.int64) * (U * W * VEC))
    return (when, when_h), (inside, inside_h), at, plane, onward


@gluon.jit
def copy_tile(
    smem, slot, inputs, ahead, start, lower, plan, C: tl.constexpr, H: tl.constexpr, STEPS: tl.constexpr
):
    """Start copying the tile at step `ahead`; returns inputs and step of the worker's next, STEPS earlier."""
    g, v, states, grads = inputs
    when, inside, at, plane, onward = plan
    steps, steps_h = ahead - when[0], ahead - when[1]
    mask = inside[0] & (steps >= start)
    fetch(smem, slot, g + at[0], C, plane, mask)
    async_copy.async_copy_global_to_shared(smem[C].index(slot), v + at[1], mask=mask)
    async_copy.async_copy_global_to_shared(smem[C + 1].index(slot), grads + at[2], mask=mask)
    mask_h = inside[1] & (steps_h > lower)
    async_copy.async_copy_global_to_shared(smem[C + 2].index(slot), states + at[3], mask=mask_h)
    async_copy.commit_group()
    return (g - onward[0], v - onward[1], states - STEPS * H, grads - STEPS * H), ahead - STEPS


@gluon.jit
def begin_copies(smem, inputs, t0, start, lower, c0, strides, H: tl.constexpr, LANES: tl.constexpr, C: tl.constexpr,
                 W: tl.constexpr, G: tl.constexpr, U: tl.constexpr, S: tl.constexpr, VEC: tl.constexpr,
                 R: tl.constexpr):  # fmt: skip
    """Start copying the worker's first S - 1 tiles, the first of them at step t0; returns inputs and step of the next,
    and the plan of all copies."""
    g, v, states, grads = inputs
    gt, gj, vt = strides
    states += (t0 - 1).to(tl.int64) * H
    grads += t0.to(tl.int64) * H
    plan = _plan(c0, strides, H, LANES, W, G, U, VEC, R)
    g += t0.to(tl.int64) * gt * VEC
    v += t0.to(tl.int64) * vt * VEC
    inputs, ahead = (g, v, states, grads), t0
    for k in tl.static_range(S - 1):
        inputs, ahead = copy_tile(smem, k, inputs, ahead, start, lower, plan, C, H, U * W)
    return inputs, ahead, plan


@gluon.jit
def read_rows(ring, slot, ROWS: tl.constexpr, G: tl.constexpr):
    """ROWS rows of a tile of states or of their gradients."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows = rows + (read(ring, slot, r, G),)
    return rows


@gluon.jit
def of_lanes(inputs, t0, channel, C: tl.constexpr, H: tl.constexpr):
    """The inputs of single lanes at step t0; all tensors are in the fast format."""
    g, v, states, grads = inputs
    states += (t0 - 1).to(tl.int64) * H
    grads += t0.to(tl.int64) * H
    g += t0.to(tl.int64) * (C * H) + channel
    v += t0.to(tl.int64) * H + channel
    return g, v, states + channel, grads + channel


@gluon.jit
def earlier(inputs, C: tl.constexpr, H: tl.constexpr, STEPS: tl.constexpr):
    """The inputs of single lanes STEPS earlier."""
    g, v, states, grads = inputs
    states, grads = states - STEPS * H, grads - STEPS * H
    return g - STEPS * C * H, v - STEPS * H, states, grads


@gluon.jit
def load_tile(
    inputs, ok, t0, start, lower, U: tl.constexpr, ROWS: tl.constexpr, C: tl.constexpr, H: tl.constexpr
):
    """Straight into registers: U steps of gates and values, of gradients, and ROWS earlier states."""
    g, v, states, grads = inputs
    left = t0 - start + 1
    return (
        load_steps(g, v, ok, left, U, C, H, -1),
        load_states(grads, ok, left, U, H),
        load_states(states, ok, t0 - lower, ROWS, H),
    )
