"""The launch table: what is chosen by m, lanes and GPU, and the user's own entries before it."""

from __future__ import annotations

import json

import pytest

from statemix.ops import launch, projection
from statemix.ops.launch import (
    HOPPER,
    KERNELS,
    MEASURED,
    LaunchConfig,
    LaunchKey,
    choose,
    choosing,
    default_launch,
    user_file,
    user_table,
)
from tests.ops.test_triton_cuda import cut, decide

HERE, OTHER = (9, 0), (8, 0)
GPU = "NVIDIA H200"
KEY = LaunchKey("bdlru", "forward", 4, 2, False)
OWN = LaunchConfig(2, 1, 4, 2, 128)


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    """A user's table of its own for each test, read afresh."""
    path = tmp_path / "launch.json"
    monkeypatch.setenv("STATEMIX_LAUNCH_TABLE", str(path))
    user_table.cache_clear()
    yield path
    user_table.cache_clear()


@pytest.mark.parametrize("kernels", sorted(set(KERNELS.values())))
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_every_m_takes_the_entry_of_the_first_limit_that_holds_it(kernels, direction):
    rows = HOPPER[kernels, direction]
    assert list(rows) == sorted(rows)
    for m in range(1, max(rows) + 1):
        limit = min(limit for limit in rows if limit >= m)
        for many in (False, True):
            assert default_launch(LaunchKey(kernels, direction, m, 2, many), HERE) == rows[limit][many]
    assert default_launch(LaunchKey(kernels, direction, max(rows) + 1, 2, False), HERE) is None


def test_a_gpu_that_was_not_measured_takes_the_portable_kernels():
    assert default_launch(KEY, OTHER) is None
    assert choose(KEY, GPU, OTHER) is None


@pytest.mark.parametrize(
    "launch", [pair for t in MEASURED.values() for rows in t.values() for pair in rows.values()]
)
def test_registers_change_hands_within_what_the_gpu_has(launch):
    for workers, warps, _, _, registers in launch:
        busy = max(4, workers * warps)
        mine = LaunchConfig(workers, warps, 1, 2, registers).worker_registers
        assert mine % 8 == 0 and 24 <= mine <= 232
        assert busy * mine + 4 * 24 <= (4 + busy) * registers
        assert (4 + busy) * 32 * registers <= 65_536


def test_keys_as_text():
    assert str(KEY) == "bdlru forward m=4 bytes=2 lanes=few"
    assert (
        str(KEY._replace(kernels="hlru", direction="backward", many=True))
        == "hlru backward m=4 bytes=2 lanes=many"
    )


def test_own_entries_come_first_and_only_for_their_gpu(own_file):
    own_file.write_text(json.dumps({"devices": {GPU: {str(KEY): list(OWN)}}}))
    assert choose(KEY, GPU, HERE) == OWN
    assert choose(KEY, GPU, OTHER) == OWN
    assert choose(KEY, "another", HERE) == default_launch(KEY, HERE)
    assert choose(KEY._replace(m=8), GPU, HERE) == default_launch(KEY._replace(m=8), HERE)


def test_a_file_of_version_0_1_is_read(own_file):
    """Its kernels were called "block" and "order"; an entry under the present name comes first."""
    former = {
        "block forward m=4 bytes=2 lanes=few": [2, 1, 4, 2, 128],
        "order backward m=8 bytes=4 lanes=many": None,
    }
    own_file.write_text(json.dumps({"devices": {GPU: former}}))
    assert user_table(GPU) == {str(KEY): OWN, "hlru backward m=8 bytes=4 lanes=many": None}
    user_table.cache_clear()
    other = OWN._replace(block_t=8)
    for entries in ({str(KEY): list(other), **former}, {**former, str(KEY): other._asdict()}):
        own_file.write_text(json.dumps({"devices": {GPU: entries}}))
        assert choose(KEY, GPU, HERE) == other
        user_table.cache_clear()


def test_a_chooser_decides_instead_of_the_tables():
    with choosing(lambda key, device, capability: OWN if key == KEY else None):
        assert choose(KEY, GPU, OTHER) == OWN
        assert choose(KEY._replace(m=8), GPU, HERE) is None
    assert choose(KEY, GPU, OTHER) is None


def test_gpu_tests_patch_what_the_kernels_use(monkeypatch):
    """A name that is gone would be noticed on a GPU alone."""
    pytest.importorskip("triton")
    from statemix.ops.triton import chunking, dispatch

    decide(monkeypatch, lambda *key: None)
    cut(monkeypatch, 64)
    assert dispatch.choose(KEY, GPU, HERE) is None
    assert chunking.chunk_length() == 64
    assert callable(dispatch.HopperKernels.empty_sums)
    assert callable(projection.can_fuse)
    assert callable(projection.fusing_backend)


def test_what_is_public():
    assert launch.LaunchConfig is LaunchConfig
    assert all(hasattr(launch, name) for name in launch.__all__)


def test_an_own_entry_may_ask_for_the_portable_kernels(own_file):
    own_file.write_text(json.dumps({"devices": {GPU: {str(KEY): None}}}))
    assert choose(KEY, GPU, HERE) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"devices": []}', '{"devices": {"NVIDIA H200": {"k": [1, 2]}}}',
     '{"devices": {"NVIDIA H200": {"k": "fast"}}}', '{"devices": {"NVIDIA H200": [1]}}'],
)  # fmt: skip
def test_a_damaged_file_is_named(own_file, text):
    own_file.write_text(text)
    with pytest.raises(ValueError, match=r"launch\.json: not a launch table"):
        choose(KEY, GPU, HERE)


def test_where_the_users_table_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("STATEMIX_LAUNCH_TABLE", "here.json")
    assert str(user_file()) == "here.json"
    monkeypatch.delenv("STATEMIX_LAUNCH_TABLE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_file() == tmp_path / "statemix" / "launch.json"
