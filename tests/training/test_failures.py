"""A disk that is full, folders that are not ours, files that are damaged: a clear error, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from statemix.training import RunError, load_run, train
from statemix.training.folder import RunFolder
from statemix.training.runs import load_config
from tests.training.small import assert_same, python, small


def test_who_comes_second_does_not_train_another_configuration(tmp_path):
    """Both found the folder empty; the one that gets the lock later looks again."""
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.prepare(small(), resume=True)
    second.prepare(small("training.lr=0.5"), resume=True)
    first.keep(small())
    with pytest.raises(RunError, match=r"another run: training.lr"):
        second.keep(small("training.lr=0.5"))
    assert load_config(tmp_path) == small()


def test_what_goes_wrong_inside_keeps_its_name(tmp_path):
    """The lock is not blamed for it."""
    with pytest.raises(FileNotFoundError, match="library"), RunFolder(tmp_path).locked():
        (tmp_path / "library").read_text()


def test_only_what_nobody_writes_any_more_is_removed(tmp_path):
    folder, host = RunFolder(tmp_path), socket.gethostname()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old, dead, alive, elsewhere = (
        tmp_path / name for name in
        (".a.json.x.1.tmp", f".b.json.{host}.{gone.pid}.tmp", f".c.json.{host}.{os.getpid()}.tmp", ".d.json.y.7.tmp")
    )  # fmt: skip
    for path in (old, dead, alive, elsewhere):
        path.write_text("")
    os.utime(old, (0, 0))
    folder.remove_leftovers()
    assert sorted(tmp_path.iterdir()) == [alive, elsewhere]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_damaged_checkpoint(stopped, damage):
    path = stopped / "checkpoint" / "state.safetensors"
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-100], "garbage": b"\xff" * 500, "empty": b""}[damage])
    with pytest.raises(RunError, match=r"state.safetensors is damaged or no safetensors file"):
        train(small(), stopped)


def test_a_foreign_checkpoint(stopped):
    path = stopped / "checkpoint" / "state.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"format 'pt', expected 'statemix-checkpoint-2'"):
        train(small(), stopped)


def test_a_checkpoint_of_another_model(stopped):
    other = small("model.dim=16")
    (stopped / "config.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(RunError, match=r"belongs to another run"):
        train(other, stopped)


def test_metrics_that_are_shorter_than_the_checkpoint_says(stopped):
    (stopped / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match=r"metrics.jsonl has 0 bytes, the checkpoint was made after \d+"):
        train(small(), stopped)


def test_a_folder_of_another_run_names_what_differs(stopped):
    with pytest.raises(
        RunError, match=r"another run: mixer.num_blocks: 4 in the folder, 5 given; training.lr: 0.01 in the"
    ):
        train(small("mixer.num_blocks=5", "training.lr=0.5"), stopped)
    with pytest.raises(RunError, match="already holds a run, and resume is off"):
        train(small(), stopped, resume=False)


def test_how_a_run_is_carried_out_may_change_on_the_way(stopped, untouched):
    summary = train(small("training.checkpoint_every=7", "training.tensorboard=off"), stopped)
    assert summary["status"] == "finished"
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (stopped / name).read_bytes() == (untouched / name).read_bytes()


def test_places_that_cannot_be_a_run(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="file is a file, expected a folder"):
        train(small(), tmp_path / "file")
    with pytest.raises(RunError, match=r"cannot write .*inside"):
        train(small(), tmp_path / "file" / "inside")
    with pytest.raises(RunError, match=r"is not empty and not a run folder"):
        train(small(), tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunError, match="Permission denied"):
            train(small(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


def test_a_read_only_file_system():
    """/proc takes no folders, not even from root."""
    with pytest.raises(RunError, match="cannot write /proc/statemix"):
        train(small(), "/proc/statemix")


@pytest.mark.parametrize("content", ["", "[1]", '{"task": 3}', '{"nothing": {}}'])
def test_a_damaged_configuration(stopped, content):
    (stopped / "config.json").write_text(content)
    with pytest.raises(RunError, match=r"config.json"):
        load_run(stopped)


def test_weights_that_are_missing_damaged_or_foreign(finished, tmp_path):
    with pytest.raises(RunError, match=r"config.json does not exist: .* is not a run folder"):
        load_run(tmp_path / "nowhere")
    copy = finished
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"model.safetensors is damaged"):
        load_run(copy)
    save_file({"weight": torch.zeros(3)}, copy / "model.safetensors")
    with pytest.raises(RunError, match=r"model.safetensors: format None, expected"):
        load_run(copy)
    save_file({"weight": torch.zeros(3)}, copy / "model.safetensors", {"format": "statemix-weights-1"})
    with pytest.raises(RunError, match=r"model.safetensors lacks tensor|has the unknown tensor"):
        load_run(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no model.safetensors: the run has not come to an end"):
        load_run(copy)


def test_a_missing_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r'pip install "safetensors>='):
        train(small(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


QUOTA = """
import resource
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    print(train(resolve_config(overrides=settings), sys.argv[1])["status"])
except RunError as error:
    print("RunError:", error)
"""


def test_a_quota_stops_the_run_and_room_lets_it_go_on(tmp_path, untouched):
    """Files may not grow beyond 4 KB: the first checkpoint does not fit; later it does."""
    result = python(QUOTA, tmp_path, "4096")
    assert result.returncode == 0, result.stderr
    assert "RunError: cannot write" in result.stdout
    assert "state.safetensors" in result.stdout
    assert not list(tmp_path.rglob(".*.tmp"))
    assert train(small(), tmp_path)["status"] == "finished"
    assert_same(tmp_path, untouched)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_last_checkpoint(tiny_disk, untouched):
    """The disk fills up between two checkpoints; once there is room, the run goes on to the same bytes."""
    code = """
count = 0
save = loop.save_checkpoint
def filling(path, *rest):
    global count
    save(path, *rest)
    count += 1
    if count == 2:
        filler = open(os.path.join(os.path.dirname(sys.argv[1]), "filler"), "wb", buffering=0)
        try:
            while True:
                filler.write(bytes(1024))
        except OSError:
            pass
loop.save_checkpoint = filling
""" + QUOTA.replace("import resource", "")
    run = tiny_disk / "run"
    result = python(code, run, "0")
    assert "No space left on device" in result.stdout, (result.stdout, result.stderr)
    assert not list(run.rglob(".*.tmp"))
    (tiny_disk / "filler").unlink()
    assert train(small(), run)["status"] == "finished"
    assert_same(run, untouched)
