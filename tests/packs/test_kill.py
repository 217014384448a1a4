"""Killed with SIGKILL anywhere, or out of disk space: shards stay, and the next run ends with the same files."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from statemix.packs import Pack
from statemix.packs import layout as layout_module
from statemix.training.files import BusyError, RunError
from tests.packs.small import contents, killed_in, prepare, python


def deadly_renames(patch, moment, wanted):
    """Let the n-th file that is put in place be the last; returns how many there were, as a list."""
    replace, seen = Path.replace, []

    def deadly(self, target):
        seen.append(target)
        if len(seen) == wanted and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(self, target)
        if len(seen) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(Path, "replace", deadly)
    return seen


RENAMES = 2 + 3 * 5 + 1
"""unfinished.json and the tokenizer; of three shards each five files; meta.json."""


def test_all_renames_are_known(tmp_path, monkeypatch):
    seen = deadly_renames(monkeypatch, "never", 0)
    prepare(tmp_path)
    assert len(seen) == RENAMES


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("wanted", range(1, RENAMES + 1))
def test_sigkill_around_a_rename(tmp_path, untouched, wanted, moment):
    with pytest.MonkeyPatch.context() as patch:
        deadly_renames(patch, moment, wanted)
        assert killed_in(lambda: prepare(tmp_path))
    prepare(tmp_path)
    assert contents(tmp_path) == contents(untouched)


@pytest.mark.parametrize("wanted", range(1, 13))
def test_sigkill_in_the_middle_of_a_file(tmp_path, untouched, wanted):
    write, seen = layout_module.write_parts, []

    def half(path, parts):
        seen.append(path)
        return write(path, deadly(parts) if len(seen) == wanted else parts)

    def deadly(parts):
        yield next(iter(parts))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("statemix.packs.writer.write_parts", half)
        assert killed_in(lambda: prepare(tmp_path))
    assert list(tmp_path.glob(".*.tmp"))
    prepare(tmp_path)
    assert contents(tmp_path) == contents(untouched)


def test_killed_between_the_last_shard_and_the_end(tmp_path):
    """All tokens that were wanted are there: nothing is added."""
    with pytest.MonkeyPatch.context() as patch:
        seen = deadly_renames(patch, "never", 0)
        prepare(tmp_path / "whole", max_tokens=60_000)
    with pytest.MonkeyPatch.context() as patch:
        deadly_renames(patch, "after", len(seen) - 1)
        assert killed_in(lambda: prepare(tmp_path / "pack", max_tokens=60_000))
    prepare(tmp_path / "pack", max_tokens=60_000)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def test_killed_again_and_again(tmp_path, untouched):
    """Each run gets one shard further than the one before; the end is the same."""
    with pytest.MonkeyPatch.context() as patch:
        deadly_renames(patch, "after", 7)
        runs = [killed_in(lambda: prepare(tmp_path)) for _ in range(4)]
    assert runs == [True, True, True, False]
    assert contents(tmp_path) == contents(untouched)


@pytest.fixture
def full_disk(monkeypatch):
    """From the n-th array on, the disk is full."""

    def after(number):
        written = 0

        class Full:
            def __init__(self, part):
                self.part = part

            def tobytes(self):
                nonlocal written
                written += 1
                if written > number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return self.part.tobytes()

        write = layout_module.write_parts
        monkeypatch.setattr(
            "statemix.packs.writer.write_parts", lambda path, parts: write(path, map(Full, parts))
        )

    return after


def test_no_disk_space_in_the_middle(tmp_path, untouched, full_disk, monkeypatch):
    full_disk(7)
    with pytest.raises(
        RunError, match=r"cannot write .*-0000\d\.\w+: No space left on device \(what was saved before is"
    ):
        prepare(tmp_path)
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*.tmp"))
    with pytest.raises(FileNotFoundError, match="is an unfinished pack"):
        Pack(tmp_path)
    there = contents(tmp_path)
    assert "unfinished.json" in there and "train-00000.bin" in there
    assert {name: there[name] for name in ("train-00000.bin", "train-00000.idx")}.items() <= contents(
        untouched
    ).items()
    monkeypatch.undo()
    prepare(tmp_path)
    assert contents(tmp_path) == contents(untouched)


LIMITED = """
import resource, signal, sys
from tests.packs.small import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
prepare(sys.argv[1])
"""


def test_the_system_refuses_to_write(tmp_path, untouched):
    """A limit of the operating system, not a stand-in: the reason is the system's."""
    done = python(LIMITED, tmp_path)
    assert done.returncode == 1
    assert "RunError: cannot write" in done.stderr and os.strerror(errno.EFBIG) in done.stderr
    prepare(tmp_path)
    assert contents(tmp_path) == contents(untouched)


@pytest.mark.parametrize("name", ["train-00000.bin", "validation-00000.idx"])
def test_a_damaged_shard_is_found_before_going_on(tmp_path, full_disk, monkeypatch, name):
    full_disk(9)
    with pytest.raises(RunError):
        prepare(tmp_path)
    monkeypatch.undo()
    data = bytearray((tmp_path / name).read_bytes())
    data[10] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RunError, match=f"{name} is damaged"):
        prepare(tmp_path)


def test_an_unfinished_pack_of_other_settings(tmp_path, full_disk, monkeypatch):
    full_disk(9)
    with pytest.raises(RunError):
        prepare(tmp_path)
    monkeypatch.undo()
    before = contents(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"unfinished pack of other settings: validation: 0.1 in the folder, 0.2 given; .*--no-resume",
    ):
        prepare(tmp_path, validation=0.2)
    assert contents(tmp_path) == before
    prepare(tmp_path, validation=0.2, resume=False)
    prepare(tmp_path.with_name("other"), validation=0.2)
    assert contents(tmp_path) == contents(tmp_path.with_name("other"))


@pytest.mark.parametrize("wanted", [1, 4])
def test_sigkill_while_an_unfinished_pack_is_discarded(tmp_path, full_disk, monkeypatch, wanted):
    full_disk(9)
    with pytest.raises(RunError):
        prepare(tmp_path)
    monkeypatch.undo()
    unlink, seen = Path.unlink, []

    def deadly(self, missing_ok=False):
        if self.suffix in (".bin", ".idx"):
            seen.append(self)
        if len(seen) == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(self, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", deadly)
        assert killed_in(lambda: prepare(tmp_path, validation=0.2, resume=False))
    prepare(tmp_path, validation=0.2)
    prepare(tmp_path.with_name("other"), validation=0.2)
    assert contents(tmp_path) == contents(tmp_path.with_name("other"))


def test_two_processes_do_not_share_a_folder(tmp_path):
    from filelock import FileLock

    tmp_path.joinpath("pack").mkdir()
    with FileLock(tmp_path / "pack" / ".lock"):
        done = python(
            "import sys; from tests.packs.small import prepare; prepare(sys.argv[1])", tmp_path / "pack"
        )
    assert "BusyError" in done.stderr and "is being written by another process" in done.stderr
    assert BusyError.__mro__[1] is RunError
    prepare(tmp_path / "pack")
