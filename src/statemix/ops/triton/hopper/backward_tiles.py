"""How a tile's numbers reach the workers of `backward`: by wide copies through shared memory, or one by one.

A worker reads at four pointers: gates, values, states one step earlier and gradients of states, at the step that its
next tile begins with. Tiles are counted from the end: they go back in time.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from statemix.ops.triton.hopper import common


@gluon.jit
def tile_stages(dtype: tl.constexpr, CFG: tl.constexpr):
    """A worker's stages: COLUMNS of gates, and one each of values, gradients and states; none where nothing is
    copied."""
    if CFG.VECTOR == 0:
        return ()
    else:
        steps = common.allocate_stages(dtype, CFG.COLUMNS + 2, CFG.BLOCK_T, CFG)
        return steps + common.allocate_stages(dtype, 1, CFG.STATE_ROWS, CFG)


@gluon.jit
def _copy_plan(c0, strides, CFG: tl.constexpr):
    """What the copies of all tiles have in common: of a tile of steps and of its rows of states, the step of each
    number and whether it is used; where the numbers are; the distances between planes and between the worker's
    tiles."""
    gt, gj, vt = strides
    STRIDE: tl.constexpr = CFG.BLOCK_T * CFG.NUM_WORKERS * CFG.VECTOR
    when, source, inside = common.tile(c0, CFG.BLOCK_T, CFG)
    when_h, source_h, inside_h = common.tile(c0, CFG.STATE_ROWS, CFG)
    at = (
        source - when * (gt * CFG.VECTOR),
        source - when * (vt * CFG.VECTOR),
        source - when * CFG.H,
        source_h - when_h * CFG.H,
    )
    plane = gj.to(tl.int64) * CFG.VECTOR
    onward = (gt.to(tl.int64) * STRIDE, vt.to(tl.int64) * STRIDE)
    return (when, when_h), (inside, inside_h), at, plane, onward


@gluon.jit
def copy_tile(smem_stages, slot, pointers, ahead, start, lower, plan, CFG: tl.constexpr):
    """Start copying the tile at step `ahead`; returns pointers and step of the worker's next tile."""
    C: tl.constexpr = CFG.COLUMNS
    ROUND: tl.constexpr = CFG.BLOCK_T * CFG.NUM_WORKERS
    g, v, states, grads = pointers
    when, inside, at, plane, onward = plan
    steps, steps_h = ahead - when[0], ahead - when[1]
    mask = inside[0] & (steps >= start)
    common.copy_planes(smem_stages, slot, g + at[0], C, plane, mask)
    async_copy.async_copy_global_to_shared(smem_stages[C].index(slot), v + at[1], mask=mask)
    async_copy.async_copy_global_to_shared(smem_stages[C + 1].index(slot), grads + at[2], mask=mask)
    mask_h = inside[1] & (steps_h > lower)
    async_copy.async_copy_global_to_shared(smem_stages[C + 2].index(slot), states + at[3], mask=mask_h)
    async_copy.commit_group()
    return (g - onward[0], v - onward[1], states - ROUND * CFG.H, grads - ROUND * CFG.H), ahead - ROUND


@gluon.jit
def begin_copies(smem_stages, pointers, t0, start, lower, c0, strides, CFG: tl.constexpr):
    """Start copying the worker's first NUM_STAGES - 1 tiles, the first of them at step t0; returns pointers and step of
    the next, and the plan of all copies."""
    S: tl.constexpr = CFG.NUM_STAGES
    g, v, states, grads = pointers
    gt, gj, vt = strides
    states += (t0 - 1).to(tl.int64) * CFG.H
    grads += t0.to(tl.int64) * CFG.H
    plan = _copy_plan(c0, strides, CFG)
    g += t0.to(tl.int64) * gt * CFG.VECTOR
    v += t0.to(tl.int64) * vt * CFG.VECTOR
    pointers, ahead = (g, v, states, grads), t0
    for k in tl.static_range(S - 1):
        pointers, ahead = copy_tile(smem_stages, k, pointers, ahead, start, lower, plan, CFG)
    return pointers, ahead, plan


@gluon.jit
def read_rows(stages, slot, ROWS: tl.constexpr, CFG: tl.constexpr):
    """ROWS rows of a tile of states or of their gradients."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows = rows + (common.read(stages, slot, r, CFG),)
    return rows


@gluon.jit
def lane_pointers(pointers, t0, channel, CFG: tl.constexpr):
    """The pointers of single lanes at step t0; all tensors are in the fast format."""
    g, v, states, grads = pointers
    states += (t0 - 1).to(tl.int64) * CFG.H
    grads += t0.to(tl.int64) * CFG.H
    g += t0.to(tl.int64) * (CFG.COLUMNS * CFG.H) + channel
    v += t0.to(tl.int64) * CFG.H + channel
    return g, v, states + channel, grads + channel


@gluon.jit
def step_back_pointers(pointers, STEPS: tl.constexpr, CFG: tl.constexpr):
    """The pointers of single lanes STEPS earlier."""
    g, v, states, grads = pointers
    states, grads = states - STEPS * CFG.H, grads - STEPS * CFG.H
    return g - STEPS * CFG.COLUMNS * CFG.H, v - STEPS * CFG.H, states, grads


@gluon.jit
def _load_rows(states, ok, left, ROWS: tl.constexpr, H: tl.constexpr):
    """ROWS states (or gradients of states) backwards in time straight into registers; only the first `left`."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows = rows + (tl.load(states - r * H, mask=ok & (r < left)),)
    return rows


@gluon.jit
def load_tile(pointers, ok, t0, start, lower, CFG: tl.constexpr):
    """Straight into registers: BLOCK_T steps of gates and values, of gradients, and the states before them."""
    g, v, states, grads = pointers
    left = t0 - start + 1
    return (
        common.load_steps(g, v, ok, left, -1, CFG),
        _load_rows(grads, ok, left, CFG.BLOCK_T, CFG.H),
        _load_rows(states, ok, t0 - lower, CFG.BLOCK_T + CFG.CARRIED - 1, CFG.H),
    )
