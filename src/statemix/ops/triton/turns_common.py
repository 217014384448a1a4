"""What the two kernels that take turns share: a program's steps and lanes, tiles in shared memory, the boards.

A lane is one row of one block (BD-LRU, affine: ORDER = False) or one channel (H-LRU: ORDER = True). What a lane carries
from step to step is a tuple of K numbers: its own component of h, or the window of its last m states, newest first.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

INTEGERS = ("T", "segment", "segments", "groups", "gb", "gt", "gj", "vb", "vt")
"""Sizes and strides of both kernels: no version of its own for a 1 or a multiple of 16."""


WHOLE = tl.constexpr(1 << 30)
"""The horizon of a segment that never forgets the state it begins with."""

ALL, BLIND, CORRECT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Phases of a launch: whole sequences or segments; segments that forget, from a zero state; again, as far as their
horizons, from the true state."""


@gluon.jit
def reach(horizons, state, channel, ok, PHASE: tl.constexpr, K: tl.constexpr):
    """How many steps of a segment this phase walks: WHOLE or none (BLIND), up to the farthest horizon (CORRECT)."""
    if PHASE == BLIND:
        nearest = gl.min(tl.load(horizons + channel, mask=ok, other=WHOLE), 0)
        return tl.where(nearest == WHOLE, 0, WHOLE)
    else:
        farthest = gl.max(tl.load(horizons + channel, mask=ok, other=0), 0)
        finite = ok | True
        for i in tl.static_range(K):
            finite = finite & (tl.abs(tl.load(state + channel * K + i, mask=ok, other=0.0)) < float("inf"))
        return tl.where(gl.min(finite.to(tl.int32), 0) == 1, farthest, WHOLE)


@gluon.jit
def sequence(bounds, s, T, segment, segments, PACKED: tl.constexpr):
    """(row, first step, end) of sequence s: a packed one, or a segment of a row (a whole row if segments = 1).

    Packed bounds were looked at before, unless a CUDA graph is being captured: here they are kept inside the row."""
    if PACKED:
        row = s * 0
        start = tl.minimum(tl.maximum(tl.load(bounds + s).to(tl.int32), 0), T)
        end = tl.minimum(tl.maximum(tl.load(bounds + s + 1).to(tl.int32), 0), T)
    else:
        row = s // segments
        start = (s % segments) * segment
        end = tl.minimum(start + segment, T)
    return row.to(tl.int64), start, end


@gluon.jit
def lanes(c0, H: tl.constexpr, m: tl.constexpr, LANES: tl.constexpr, G: tl.constexpr):
    """Of a worker's lanes [1, G, 32]: channel, whether it exists, first lane of its block, own place in the block."""
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [G], [0])
    place = gl.arange(0, G * 32, layout=flat).reshape([1, G, 32])
    lane = place % 32
    channel = c0 + place // 32 * LANES + lane
    return channel, (lane < LANES) & (channel < H), tl.minimum(lane // m * m, LANES - m), lane % m


@gluon.jit
def tile(c0, H: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr, G: tl.constexpr, VEC: tl.constexpr):
    """Of the numbers of a tile of STEPS steps, as they are copied: step, channel, and whether a lane uses it."""
    copy: tl.constexpr = gl.BlockedLayout([VEC], [32], [G], [0])
    e = gl.arange(0, STEPS * G * 32, layout=copy)
    channel = c0 + e // 32 % G * LANES + e % 32
    used = channel < H
    if LANES < 32:
        used = used & (e % 32 < LANES)
    return e // (G * 32), channel, used


@gluon.jit
def rings(dtype: tl.constexpr, COUNT: tl.constexpr, STAGES: tl.constexpr, ELEMENTS: tl.constexpr):
    """COUNT rings of STAGES tiles in shared memory."""
    shared: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    smem = ()
    for _ in tl.static_range(COUNT):
        smem = smem + (gl.allocate_shared_memory(dtype, [STAGES, ELEMENTS], shared),)
    return smem


@gluon.jit
def fetch(smem, slot, pointer, PLANES: tl.constexpr, plane_stride, mask):
    """Start copying one tile of each of PLANES planes into slot `slot` of their rings."""
    for j in tl.static_range(PLANES):
        async_copy.async_copy_global_to_shared(smem[j].index(slot), pointer + j * plane_stride, mask=mask)


@gluon.jit
def read(ring, slot, u: tl.constexpr, G: tl.constexpr):
    """Step u of a tile as float32 [1, G, 32], one lane an element: gathers along 32 stay inside a warp."""
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [G], [0])
    return ring.index(slot).slice(u * G * 32, G * 32).load(flat).reshape([1, G, 32]).to(tl.float32)


@gluon.jit
def read_gates(smem, slot, u: tl.constexpr, C: tl.constexpr, G: tl.constexpr):
    """The raw gates of step u, a tuple of C."""
    raw = ()
    for j in tl.static_range(C):
        raw = raw + (read(smem[j], slot, u, G),)
    return raw


@gluon.jit
def load_steps(
    gates, values, ok, ahead, STEPS: tl.constexpr, C: tl.constexpr, H: tl.constexpr, SIGN: tl.constexpr
):
    """The raw gates and the value of STEPS steps onwards (SIGN = 1) or backwards (-1) straight into registers, for
    channels that no wide copy can take: a tuple of C + 1 for each. Steps from the `ahead`-th on are not read."""
    steps = ()
    for u in tl.static_range(STEPS):
        here, numbers = ok & (u < ahead), ()
        for j in tl.static_range(C):
            numbers = numbers + (tl.load(gates + (SIGN * u * C + j) * H, mask=here),)
        steps = steps + (numbers + (tl.load(values + SIGN * u * H, mask=here),),)
    return steps


@gluon.jit
def load_states(states, ok, ahead, ROWS: tl.constexpr, H: tl.constexpr):
    """ROWS states (or gradients of states) backwards in time straight into registers, as `load_steps`."""
    rows = ()
    for r in tl.static_range(ROWS):
        rows = rows + (tl.load(states - r * H, mask=ok & (r < ahead)),)
    return rows


@gluon.jit
def gates_of(numbers, C: tl.constexpr):
    """The raw gates of one loaded step as float32."""
    raw = ()
    for j in tl.static_range(C):
        raw = raw + (numbers[j].to(tl.float32),)
    return raw


@gluon.jit
def gates_at(held, slot, u: tl.constexpr, C: tl.constexpr, G: tl.constexpr, DIRECT: tl.constexpr):
    """The raw gates of step u of a tile; `held` are the rings whose slot it is in, or (DIRECT) its loaded steps."""
    return gates_of(held[u], C) if DIRECT else read_gates(held, slot, u, C, G)


@gluon.jit
def value_at(held, slot, u: tl.constexpr, C: tl.constexpr, G: tl.constexpr, DIRECT: tl.constexpr):
    """The value of step u of a tile, as `gates_at`."""
    return held[u][C].to(tl.float32) if DIRECT else read(held[C], slot, u, G)


@gluon.jit
def open_boards(state, channel, ok, W: tl.constexpr, G: tl.constexpr, K: tl.constexpr):
    """A board and a barrier for each of W workers; the first worker's board holds `state` [.., K]."""
    shared: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    boards, turns = (), ()
    for _ in tl.static_range(W):
        boards = boards + (gl.allocate_shared_memory(tl.float32, [K, G * 32], shared),)
        turn = gl.allocate_shared_memory(tl.int64, [1], mbarrier.MBarrierLayout())
        mbarrier.init(turn, count=1)
        turns = turns + (turn,)
    for i in tl.static_range(K):
        boards[0].index(i).store(tl.load(state + channel * K + i, mask=ok, other=0.0))
    return boards, turns


@gluon.jit
def take_turn(board, turn, k, ME: tl.constexpr, K: tl.constexpr, G: tl.constexpr):
    """Wait for round k's turn and take what the predecessor left. Worker 0 begins: its barrier lags by a round, and
    one that nobody has arrived at lets it pass."""
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [G], [0])
    mbarrier.wait(turn, (k + 1) & 1 if ME == 0 else k & 1)
    state = ()
    for i in tl.static_range(K):
        state = state + (board.index(i).load(flat).reshape([1, G, 32]),)
    return state


@gluon.jit
def pass_turn(board, turn, state, K: tl.constexpr, G: tl.constexpr):
    """Leave the state for the successor and let it go."""
    for i in tl.static_range(K):
        board.index(i).store(state[i].reshape([G * 32]))
    mbarrier.arrive(turn, count=1)


@gluon.jit
def idle():
    """The default partition of a warp-specialised kernel has at least four warps; the workers are all others."""
    pass  # noqa: PIE790  (the dialect wants a statement)
