"""A run's folder is its own: what is removed, replaced or changed in mid-run is noticed, and no link is followed."""

from __future__ import annotations

import json
import os
import shutil
import socket

import pytest
import torch

from statemix.training import (
    RunError,
    RunFolder,
    check_metrics,
    evaluate_run,
    load_run,
    train,
    train_concurrently,
)
from statemix.training.files import read_json, replace_file
from tests.training.small import assert_same, small


def replaced(name):
    def act(folder):
        shutil.copy(folder / name, folder / "copy")
        (folder / "copy").write_bytes((folder / name).read_bytes()[:-2] + b"9\n")
        (folder / "copy").replace(folder / name)

    return act


def change_seed(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["sha256"]  # as somebody would who edits the file
    content["training"]["seed"] += 1
    (folder / "config.json").write_text(json.dumps(content))


EVENTS = {
    "folder removed": (shutil.rmtree, r"run/lock was removed, moved or replaced while the run was training"),
    "folder made anew": (lambda f: (shutil.rmtree(f), f.mkdir()), r"run/lock was removed, moved"),
    "configuration replaced": (replaced("config.json"), r"cannot read .*config.json"),
    "configuration changed": (change_seed, r"run holds another run: "),
    "metrics removed": (
        lambda f: (f / "metrics.jsonl").unlink(),
        r"metrics.jsonl was removed, moved or replaced",
    ),
    "metrics replaced": (replaced("metrics.jsonl"), r"metrics.jsonl was removed, moved or replaced"),
    "lock removed": (lambda f: (f / "lock").unlink(), r"lock was removed, moved or replaced"),
    "lock replaced": (replaced("lock"), r"lock was removed, moved or replaced"),
}


@pytest.mark.parametrize(
    ("event", "step"),
    [
        *((event, 23) for event in EVENTS),
        ("folder removed", 53),
        ("lock removed", 53),
    ],
)
def test_what_is_removed_under_a_run_stops_it(tmp_path, untouched, at_step, monkeypatch, event, step):
    """Before the next checkpoint or at the end, which are not written; the run can be had all the same."""
    act, message = EVENTS[event]
    left = {}
    saved = ("model.safetensors", "summary.json", "checkpoint/state.safetensors")

    def acting(folder):
        act(folder)
        left.update({name: (folder / name).stat().st_mtime_ns for name in saved if (folder / name).exists()})

    folder = tmp_path / "run"
    at_step(step, acting)
    with pytest.raises(RunError, match=message) as error:
        train(small(), folder)
    assert "\n" not in str(error.value)
    assert {name: (folder / name).stat().st_mtime_ns for name in saved if (folder / name).exists()} == left
    monkeypatch.undo()
    if event.startswith("configuration"):
        (folder / "config.json").unlink()
    if event.startswith("metrics"):
        with pytest.raises(RunError, match=r"metrics.jsonl .*remove the folder to train from the beginning"):
            train(small(), folder)
        shutil.rmtree(folder)
    train(small(), folder)
    assert_same(folder, untouched)


CHANGES = {
    "emptied": lambda path: path.write_text(""),
    "changed": lambda path: path.write_bytes(path.read_bytes().swapcase()),
    "added to": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
}


@pytest.mark.parametrize(
    ("change", "ends"), [*((change, "killed") for change in CHANGES), ("changed", "finished")]
)
def test_metrics_that_were_changed_are_noticed_when_they_are_read(
    tmp_path, at_step, monkeypatch, change, ends
):
    """By the digest in the summary, or in the checkpoint that the run resumes from."""

    def fail(folder):
        raise KeyboardInterrupt

    at_step(23, lambda folder: CHANGES[change](folder / "metrics.jsonl"))
    if ends == "killed":
        at_step(33, fail)
        with pytest.raises(KeyboardInterrupt):
            train(small(), tmp_path)
        monkeypatch.undo()
        with pytest.raises(RunError, match=r"metrics.jsonl (is damaged|has \d+ bytes)"):
            train(small(), tmp_path)
    else:
        summary = train(small(), tmp_path)
        with pytest.raises(RunError, match=r"metrics.jsonl is damaged"):
            check_metrics(tmp_path / "metrics.jsonl", summary)


def test_what_only_looks_changed_goes_on(tmp_path, untouched, at_step):
    """A configuration that was removed, which is put back, and metrics that were touched."""

    def act(folder):
        (folder / "config.json").unlink()
        os.utime(folder / "metrics.jsonl")

    at_step(23, act)
    assert train(small(), tmp_path)["status"] == "finished"
    assert_same(tmp_path, untouched)


def test_a_folder_that_was_moved_goes_on_under_its_new_name(tmp_path, untouched, at_step, monkeypatch):
    at_step(23, lambda folder: folder.rename(tmp_path / "moved"))
    with pytest.raises(RunError, match="lock was removed, moved or replaced"):
        train(small(), tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    train(small(), tmp_path / "moved")
    assert_same(tmp_path / "moved", untouched)


def test_two_never_train_one_folder(tmp_path, untouched, at_step, monkeypatch):
    """The lock is deleted and another takes the folder: the first notices before it writes, the second finishes."""
    other = {}

    def act(folder):
        (folder / "lock").unlink()
        monkeypatch.undo()
        other.update(train(small(), folder))

    at_step(23, act)
    with pytest.raises(RunError, match=r"lock was removed, moved or replaced"):
        train(small(), tmp_path)
    assert other["status"] == "finished"
    assert_same(tmp_path, untouched)


def test_side_by_side_the_others_go_on(tmp_path, untouched, at_step):
    at_step(23, lambda folder: shutil.rmtree(folder) if folder.name == "a" else None)
    gone, good = train_concurrently([small()] * 2, [tmp_path / "a", tmp_path / "b"])
    assert gone["error"].startswith("RunError:")
    assert not (tmp_path / "a").exists()  # not even for its failure
    assert good["status"] == "finished"
    assert_same(tmp_path / "b", untouched)


def test_tensorboard_removed(tmp_path, at_step, monkeypatch):
    pytest.importorskip("tensorboard")
    at_step(23, lambda folder: shutil.rmtree(folder / "tensorboard"))
    with pytest.raises(RunError, match="tensorboard was removed while the run was training"):
        train(small("training.tensorboard=on"), tmp_path)
    monkeypatch.undo()
    assert train(small("training.tensorboard=on"), tmp_path)["status"] == "finished"


OWN = ("lock", "metrics.jsonl", "config.json", "summary.json", "model.safetensors", "failure.txt",
       "checkpoint/state.safetensors")  # fmt: skip


@pytest.mark.parametrize("name", [*OWN, "checkpoint", "tensorboard"])
@pytest.mark.parametrize("target", ["file", "folder", "nothing"])
def test_links_in_a_folder_are_not_followed(tmp_path, stopped, name, target):
    """A stranger's file or folder stays as it was, and nothing is made where a link leads to nothing."""
    strange = tmp_path / "strange"
    {"file": lambda: strange.write_text("mine"), "folder": strange.mkdir, "nothing": lambda: None}[target]()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for folder in (fresh, stopped):
        link = folder / name
        link.parent.mkdir(exist_ok=True)
        if link.is_dir():
            shutil.rmtree(link)
        link.unlink(missing_ok=True)
        link.symlink_to(strange)
        with pytest.raises(RunError, match=rf"{name} is a symbolic link, expected the run's own"):
            train(small(), folder)
        assert link.is_symlink()
    assert not strange.exists() if target == "nothing" else strange.exists()
    assert target != "file" or strange.read_text() == "mine"
    assert target != "folder" or not list(strange.iterdir())


def test_a_link_that_comes_later_is_not_followed(tmp_path):
    """Between the first look at the folder and the opening."""
    (tmp_path / "strange").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "strange")
    with pytest.raises(RunError, match=r"cannot write .*lock"), RunFolder(tmp_path).locked():
        pass
    assert (tmp_path / "strange").read_text() == "mine"


def test_a_name_that_leads_to_another_kind_of_thing(tmp_path, stopped):
    (stopped / "metrics.jsonl").unlink()
    os.mkfifo(stopped / "metrics.jsonl")
    with pytest.raises(RunError, match=r"cannot read .*metrics.jsonl: not a regular file"):
        train(small(), stopped)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint").write_text("mine")
    with pytest.raises(RunError, match="is not empty and not a run folder"):
        train(small(), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint").read_text() == "mine"


def test_a_second_name_of_a_file_keeps_its_content(tmp_path, untouched, stopped):
    """As a backup by hard links has it."""
    shutil.copytree(stopped, tmp_path / "backup", copy_function=os.link)
    before = {path: path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert train(small(), stopped)["status"] == "finished"
    assert {path: path.read_bytes() for path in before} == before
    assert_same(stopped, untouched)


def test_a_folder_may_be_a_link(tmp_path, untouched):
    """Runs are put on another disk that way."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert train(small(), tmp_path / "run")["status"] == "finished"
    assert_same(tmp_path / "disk", untouched)
    assert evaluate_run(tmp_path / "run") == evaluate_run(untouched)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="dangling is a symbolic link to nothing, expected a folder"):
        train(small(), tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_temporary_names_cannot_be_guessed(tmp_path):
    seen = []
    for _ in range(2):
        replace_file(tmp_path / "a", lambda path: (seen.append(path), path.write_text("x")))
    assert len(set(seen)) == 2
    assert all(path.name.startswith(f".a.{socket.gethostname()}.{os.getpid()}.") for path in seen)
    (tmp_path / "strange").write_text("mine")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path / "strange")
    replace_file(tmp_path / "a", lambda path: path.write_text("x"))
    assert (tmp_path / "strange").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "strange"]


def test_a_temporary_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    taken = tmp_path / f".a.{socket.gethostname()}.{os.getpid()}.00000000.tmp"
    taken.symlink_to(tmp_path / "strange")
    with pytest.raises(RunError, match=r"cannot write .*File exists"):
        replace_file(tmp_path / "a", lambda path: path.write_text("x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [taken.name]


def test_folders_with_any_name(tmp_path, untouched):
    folder = tmp_path / os.fsdecode(b"\xff\xfe run") / "läufe (1) [b]" / "a\nb"
    assert train(small(), folder)["status"] == "finished"
    assert_same(folder, untouched)
    assert evaluate_run(folder) == evaluate_run(untouched)
    with pytest.raises(RunError, match="holds another run"):
        train(small("training.seed=1"), folder)


def test_a_failure_in_a_folder_that_is_no_text(tmp_path, at_step):
    def fail(folder):
        raise RuntimeError(f"{folder} is full")

    at_step(23, fail)
    folder = tmp_path / os.fsdecode(b"\xff")
    assert train_concurrently([small()], [folder])[0]["status"] == "failed"
    assert r"\udcff is full" in (folder / "failure.txt").read_text()


def test_a_run_without_a_configuration_is_not_taken_over(tmp_path, stopped):
    """Only the run itself goes on in a folder that lost its config.json, and no stranger's file is cut short."""
    run = stopped
    (run / "config.json").unlink()
    with pytest.raises(RunError, match=r"no config.json\): choose another, or put the file back"):
        train(small("training.seed=1"), run)
    (run / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no config.json"):
        train(small(), run)
    (run / "notes.txt").unlink()
    assert train(small(), run)["status"] == "finished"
    checkpoint = tmp_path / "other" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.pt").write_text("mine")
    with pytest.raises(RunError, match=r"no config.json"):
        train(small(), tmp_path / "other")
    assert (checkpoint / "model.pt").read_text() == "mine"
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "metrics.jsonl").write_text('{"loss": 1}\n')
    for names in ((), ("lock",)):
        for name in names:
            (strange / name).touch()
        with pytest.raises(RunError, match=r"no config.json"):
            train(small(), strange)
        assert (strange / "metrics.jsonl").read_text() == '{"loss": 1}\n'


def test_what_others_put_beside_the_checkpoint_stays(stopped):
    (stopped / "checkpoint" / "best.pt").write_text("mine")
    assert train(small(), stopped)["status"] == "finished"
    assert [path.name for path in (stopped / "checkpoint").iterdir()] == ["best.pt"]


def test_an_unfinished_run_says_so(stopped):
    message = (
        r"is not finished: the run has not come to an end \(saved at step 23 of 60\).*; `statemix train`"
    )
    with pytest.warns(RuntimeWarning, match=message):
        config, _ = load_run(stopped)
    assert config == small()
    (stopped / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"has no model.safetensors: .* \(saved at step 23 of 60\)"):
        load_run(stopped)
    shutil.rmtree(stopped / "checkpoint")
    with pytest.raises(RunError, match="saved at step 0 of 60"):
        load_run(stopped)


def test_a_missing_folder_is_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"config.json does not exist: .*nowhere is not a run folder"):
        evaluate_run(tmp_path / "nowhere")


def test_a_longer_run_is_told_where_to_begin(untouched, tmp_path):
    """And begins there."""
    run = shutil.copytree(untouched, tmp_path / "run 1")
    longer = small("training.steps=80")
    with pytest.raises(
        RunError, match=r"training.steps: 60 in the folder, 80 given; .* with --out '.*run 1-80'"
    ):
        train(longer, run)
    assert train(longer, tmp_path / "run 1-80")["step"] == 80
    assert read_json(run / "summary.json")["step"] == 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_configuration_from_another_device(tmp_path, untouched):
    run = shutil.copytree(untouched, tmp_path / "run")
    for device in ("cuda", "cuda:3"):
        content = read_json(run / "config.json")
        content["training"]["device"] = device
        (run / "config.json").write_text(json.dumps(content))
        message = rf"training.device: got '{device}', which cannot be used here: .*; evaluating on 'cpu'"
        with pytest.warns(RuntimeWarning, match=message):
            assert evaluate_run(run) == evaluate_run(untouched)
