"""What the Hopper kernels share: a program's steps and lanes, tiles in shared memory, the hand-off between workers.

A lane is one row of one block (BD-LRU, affine) or one channel (H-LRU). What a lane carries from step to step is a tuple
of CARRIED numbers: its own component of h, or the window of its last M states, newest first. CFG is a `config.Config`.
"""

# mypy: ignore-errors
from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from statemix.ops.triton.hopper import config

INTEGERS = ("T", "chunk", "num_chunks", "groups", "gb", "gt", "gj", "vb", "vt")
"""Sizes and strides of all kernels: no version of its own for a 1 or a multiple of 16."""

NEVER_FORGETS = tl.constexpr(1 << 30)
"""The memory length of a chunk that never forgets the state it begins with."""

SINGLE_PASS = tl.constexpr(config.SINGLE_PASS)
LOCAL_PASS = tl.constexpr(config.LOCAL_PASS)
FIXUP_PASS = tl.constexpr(config.FIXUP_PASS)


@gluon.jit
def active_steps(memory_lengths, state, channel, ok, CFG: tl.constexpr):
    """How many steps of a chunk are walked: all or none (local pass), up to the longest memory (fix-up pass)."""
    K: tl.constexpr = CFG.CARRIED
    if CFG.PASS == LOCAL_PASS:
        shortest = gl.min(tl.load(memory_lengths + channel, mask=ok, other=NEVER_FORGETS), 0)
        return tl.where(shortest == NEVER_FORGETS, 0, NEVER_FORGETS)
    else:
        longest = gl.max(tl.load(memory_lengths + channel, mask=ok, other=0), 0)
        finite = ok | True
        for i in tl.static_range(K):
            finite = finite & (tl.abs(tl.load(state + channel * K + i, mask=ok, other=0.0)) < float("inf"))
        return tl.where(gl.min(finite.to(tl.int32), 0) == 1, longest, NEVER_FORGETS)


@gluon.jit
def sequence(bounds, s, T, chunk, num_chunks, CFG: tl.constexpr):
    """(row, first step, end) of sequence s: a packed one, or a chunk of a row (a whole row if num_chunks = 1).

    Packed bounds were checked before, unless a CUDA graph is being captured: here they are kept inside the row."""
    if CFG.PACKED:
        row = s * 0
        start = tl.minimum(tl.maximum(tl.load(bounds + s).to(tl.int32), 0), T)
        end = tl.minimum(tl.maximum(tl.load(bounds + s + 1).to(tl.int32), 0), T)
    else:
        row = s // num_chunks
        start = (s % num_chunks) * chunk
        end = tl.minimum(start + chunk, T)
    return row.to(tl.int64), start, end


@gluon.jit
def program_lanes(c0, CFG: tl.constexpr):
    """Channels of a whole program, over all its warps, and whether they exist."""
    place = gl.arange(0, CFG.NUM_WARPS * 32, layout=gl.BlockedLayout([1], [32], [gl.num_warps()], [0]))
    channel = c0 + place // 32 * CFG.LANES + place % 32
    return channel, (place % 32 < CFG.LANES) & (channel < CFG.H)


@gluon.jit
def worker_lanes(c0, CFG: tl.constexpr):
    """Of a worker's lanes [1, NUM_WARPS, 32]: channel, whether it exists, first lane and own place of its block."""
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [CFG.NUM_WARPS], [0])
    place = gl.arange(0, CFG.NUM_WARPS * 32, layout=flat).reshape([1, CFG.NUM_WARPS, 32])
    lane = place % 32
    channel = c0 + place // 32 * CFG.LANES + lane
    ok = (lane < CFG.LANES) & (channel < CFG.H)
    return channel, ok, tl.minimum(lane // CFG.M * CFG.M, CFG.LANES - CFG.M), lane % CFG.M


@gluon.jit
def tile(c0, STEPS: tl.constexpr, CFG: tl.constexpr):
    """Of the numbers of a tile of STEPS steps, as they are copied: step, channel, and whether a lane uses it."""
    copy: tl.constexpr = gl.BlockedLayout([CFG.VECTOR], [32], [CFG.NUM_WARPS], [0])
    e = gl.arange(0, STEPS * CFG.NUM_WARPS * 32, layout=copy)
    channel = c0 + e // 32 % CFG.NUM_WARPS * CFG.LANES + e % 32
    used = channel < CFG.H
    if CFG.LANES < 32:
        used = used & (e % 32 < CFG.LANES)
    return e // (CFG.NUM_WARPS * 32), channel, used


@gluon.jit
def allocate_stages(dtype: tl.constexpr, COUNT: tl.constexpr, STEPS: tl.constexpr, CFG: tl.constexpr):
    """Shared memory for NUM_STAGES tiles of STEPS steps, COUNT times."""
    shared: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    size: tl.constexpr = STEPS * CFG.NUM_WARPS * 32
    smem_stages = ()
    for _ in tl.static_range(COUNT):
        stages = gl.allocate_shared_memory(dtype, [CFG.NUM_STAGES, size], shared)
        smem_stages = smem_stages + (stages,)
    return smem_stages


@gluon.jit
def copy_planes(smem_stages, slot, pointer, PLANES: tl.constexpr, plane_stride, mask):
    """Start copying one tile of each of PLANES planes into their stage `slot`."""
    for j in tl.static_range(PLANES):
        async_copy.async_copy_global_to_shared(
            smem_stages[j].index(slot), pointer + j * plane_stride, mask=mask
        )


@gluon.jit
def read(stages, slot, u: tl.constexpr, CFG: tl.constexpr):
    """Step u of a tile as float32 [1, NUM_WARPS, 32], one lane an element: gathers along 32 stay inside a warp."""
    width: tl.constexpr = CFG.NUM_WARPS * 32
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [CFG.NUM_WARPS], [0])
    return (
        stages.index(slot).slice(u * width, width).load(flat).reshape([1, CFG.NUM_WARPS, 32]).to(tl.float32)
    )


@gluon.jit
def load_steps(gates, values, ok, left, SIGN: tl.constexpr, CFG: tl.constexpr):
    """The raw gates and the value of BLOCK_T steps onwards (SIGN = 1) or backwards (-1) straight into registers, for
    channels that no wide copy can take: a tuple of COLUMNS + 1 for each. Only the first `left` steps are read."""
    BLOCK_T: tl.constexpr = CFG.BLOCK_T
    C: tl.constexpr = CFG.COLUMNS
    H: tl.constexpr = CFG.H
    steps = ()
    for u in tl.static_range(BLOCK_T):
        here, numbers = ok & (u < left), ()
        for j in tl.static_range(C):
            numbers = numbers + (tl.load(gates + (SIGN * u * C + j) * H, mask=here),)
        steps = steps + (numbers + (tl.load(values + SIGN * u * H, mask=here),),)
    return steps


@gluon.jit
def gates_at(tiles, slot, u: tl.constexpr, CFG: tl.constexpr):
    """The raw gates of step u of a tile as float32; `tiles` are the stages that hold it, or (VECTOR = 0) its loaded
    steps."""
    C: tl.constexpr = CFG.COLUMNS
    raw = ()
    for j in tl.static_range(C):
        raw = raw + ((tiles[u][j].to(tl.float32) if CFG.VECTOR == 0 else read(tiles[j], slot, u, CFG)),)
    return raw


@gluon.jit
def value_at(tiles, slot, u: tl.constexpr, CFG: tl.constexpr):
    """The value of step u of a tile, as `gates_at`."""
    C: tl.constexpr = CFG.COLUMNS
    return tiles[u][C].to(tl.float32) if CFG.VECTOR == 0 else read(tiles[C], slot, u, CFG)


@gluon.jit
def open_handoff(state, channel, ok, CFG: tl.constexpr):
    """State in shared memory and a barrier for each worker; the first worker's holds `state` [.., CARRIED]."""
    W: tl.constexpr = CFG.NUM_WORKERS
    K: tl.constexpr = CFG.CARRIED
    shared: tl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    state_smem, barriers = (), ()
    for _ in tl.static_range(W):
        state_smem = state_smem + (gl.allocate_shared_memory(tl.float32, [K, CFG.NUM_WARPS * 32], shared),)
        barrier = gl.allocate_shared_memory(tl.int64, [1], mbarrier.MBarrierLayout())
        mbarrier.init(barrier, count=1)
        barriers = barriers + (barrier,)
    for i in tl.static_range(K):
        state_smem[0].index(i).store(tl.load(state + channel * K + i, mask=ok, other=0.0))
    return state_smem, barriers


@gluon.jit
def receive_state(handoff, k, WORKER: tl.constexpr, CFG: tl.constexpr):
    """Wait for round k's hand-off and take what the predecessor left. Worker 0 begins: its barrier lags by a round, and
    one that nobody has arrived at lets it through."""
    state_smem, barriers = handoff
    K: tl.constexpr = CFG.CARRIED
    flat: tl.constexpr = gl.BlockedLayout([1], [32], [CFG.NUM_WARPS], [0])
    mbarrier.wait(barriers[WORKER], (k + 1) & 1 if WORKER == 0 else k & 1)
    state = ()
    for i in tl.static_range(K):
        state = state + (state_smem[WORKER].index(i).load(flat).reshape([1, CFG.NUM_WARPS, 32]),)
    return state


@gluon.jit
def send_state(handoff, state, WORKER: tl.constexpr, CFG: tl.constexpr):
    """Leave the state for the next worker and let it go."""
    state_smem, barriers = handoff
    K: tl.constexpr = CFG.CARRIED
    NEXT: tl.constexpr = (WORKER + 1) % CFG.NUM_WORKERS
    for i in tl.static_range(K):
        state_smem[NEXT].index(i).store(state[i].reshape([CFG.NUM_WARPS * 32]))
    mbarrier.arrive(barriers[NEXT], count=1)


@gluon.jit
def idle():
    """The default partition of a warp-specialised kernel has at least four warps; the workers are all others."""
    pass  # noqa: PIE790  (the dialect wants a statement)
