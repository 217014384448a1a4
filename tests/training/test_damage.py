"""Damaged, swapped and older files: noticed by their digests or by what they hold, and named in the error."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from statemix.training import RunError, evaluate_run, load_run, train
from statemix.training.files import DIGEST, read_json, write_json
from statemix.training.metrics import check_metrics
from tests.training.small import small

CHECKPOINT, WEIGHTS = "checkpoint/state.safetensors", "model.safetensors"
CHECKPOINT_1, WEIGHTS_1 = "statemix-checkpoint-1", "statemix-weights-1"


def damages(content, seed=0, count=5):
    """The content with a flipped bit, cut off, or with zeros or noise in some place."""
    draw = random.Random(seed)
    yield from (b"", bytes(len(content)), content[:7], content[: len(content) // 2], content[:-1])
    for _ in range(count):
        place, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        yield content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        for piece in (bytes(16), draw.randbytes(16)):
            yield content[:place] + piece + content[place + 16 :]


def use(folder):
    """What a command does with the folder: a finished run is evaluated, an unfinished one goes on."""
    if (folder / CHECKPOINT).exists():
        train(small(), folder)
        return read_json(folder / "summary.json") | {"seconds": 0}
    return train(small(), folder) | {"seconds": 0}, evaluate_run(folder, [6])


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("stopped", CHECKPOINT), ("stopped", "metrics.jsonl"), ("stopped", "config.json"), ("stopped", "summary.json"),
        ("finished", WEIGHTS), ("finished", "config.json"), ("finished", "summary.json"),
    ],
)  # fmt: skip
def test_no_damage_goes_unnoticed(runs, tmp_path, state, name):
    """An error that names the file, or everything as it would have been (spaces are no damage)."""
    right = use(shutil.copytree(runs / f"{state}-0", tmp_path / "right"))
    content = (runs / f"{state}-0" / name).read_bytes()
    noticed = 0
    for number, damaged in enumerate(damages(content)):
        folder = shutil.copytree(runs / f"{state}-0", tmp_path / str(number))
        (folder / name).write_bytes(damaged)
        told = None
        try:
            assert use(folder) == right
        except RunError as error:
            told = str(error)
        if told is not None:
            noticed += 1
            assert name in told
            assert "\n" not in told
    assert noticed > 13


@pytest.mark.parametrize("name", [CHECKPOINT, "metrics.jsonl"])
def test_what_belongs_to_another_run_is_not_resumed(stopped, runs, name):
    shutil.copy(runs / "stopped-1" / name, stopped / name)
    with pytest.raises(RunError, match=rf"{name} (belongs to another run|is damaged|has)"):
        train(small(), stopped)


def test_the_weights_and_summary_of_another_run(finished, runs):
    shutil.copy(runs / "finished-1" / WEIGHTS, finished / WEIGHTS)
    with pytest.raises(RunError, match=r"model.safetensors belongs to another run"):
        evaluate_run(finished)
    shutil.copy(runs / "finished-0" / WEIGHTS, finished / WEIGHTS)
    shutil.copy(runs / "finished-1" / "summary.json", finished / "summary.json")
    for act in (load_run, lambda folder: train(small(), folder)):
        with pytest.raises(RunError, match=r"summary.json belongs to another run"):
            act(finished)


def told_by(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["statemix"])


def older(path, form):
    """The file as the earliest versions wrote it: no digest, no run."""
    told = {"format": form}
    if "position" in (found := told_by(path)):
        told["position"] = json.dumps({k: v for k, v in found["position"].items() if k != "metrics_sha256"})
    save_file(load_file(path), path, told)


def older_json(path, *more):
    content = read_json(path)
    path.write_text(json.dumps({key: content[key] for key in content if key not in more}))


def test_runs_of_earlier_versions_go_on_and_are_read(stopped, finished, runs):
    for folder in (stopped, finished):
        older_json(folder / "config.json")
        older_json(folder / "summary.json", "run", "metrics_sha256")
    older(stopped / CHECKPOINT, CHECKPOINT_1)
    older(finished / WEIGHTS, WEIGHTS_1)
    assert evaluate_run(finished) == evaluate_run(runs / "finished-0")
    assert train(small(), finished)["status"] == "finished"
    assert train(small(), stopped)["status"] == "finished"
    for name in ("metrics.jsonl", WEIGHTS):
        assert (stopped / name).read_bytes() == (runs / "finished-0" / name).read_bytes()


def tensors(change):
    return lambda found, position: change(found)


WRONG = {
    "whole numbers": (
        tensors(lambda found: found | {"model.embedding.weight": found["model.embedding.weight"].long()}),
        r"'model.embedding.weight' is torch.int64 .*, expected torch.float32",
    ),
    "half precision": (
        tensors(lambda found: found | {"optimizer.0.exp_avg": found["optimizer.0.exp_avg"].half()}),
        r"'optimizer.0.exp_avg' is torch.float16",
    ),
    "a moment of another shape": (
        tensors(lambda found: found | {"optimizer.0.exp_avg_sq": torch.zeros(2, 2)}),
        r"'optimizer.0.exp_avg_sq' is torch.float32 \[2, 2\], expected",
    ),
    "no moment": (
        tensors(lambda found: {key: found[key] for key in found if key != "optimizer.1.exp_avg"}),
        r"lacks tensor 'optimizer.1.exp_avg'",
    ),
    "no optimizer": (
        tensors(lambda found: {key: found[key] for key in found if key.startswith("model.")}),
        r"lacks tensor 'optimizer.0.exp_avg'",
    ),
    "a parameter too many": (
        tensors(lambda found: found | {"optimizer.99.step": torch.ones(())}),
        r"has the unknown tensor 'optimizer.99.step'",
    ),
    "a stranger": (tensors(lambda found: found | {"moment": torch.ones(())}), r"unknown tensor 'moment'"),
    "a step below": (lambda found, position: position.update(step=-5), r"step -5, expected 1 to 60"),
    "a step beyond": (lambda found, position: position.update(step=61), r"step 61, expected 1 to 60"),
    "no length": (lambda found, position: position.pop("metrics"), r"position is .*, expected metrics"),
    "no whole line": (lambda found, position: position.update(metrics=9), r"metrics.jsonl is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_without_a_digest_is_looked_through(stopped, case):
    change, message = WRONG[case]
    path = stopped / CHECKPOINT
    older(path, CHECKPOINT_1)
    with safe_open(path, framework="pt") as file:
        position = json.loads(file.metadata()["position"])
    found = load_file(path)
    changed = change(found, position)
    save_file(
        changed if isinstance(changed, dict) and "step" not in changed else found, path,
        {"format": CHECKPOINT_1, "position": json.dumps(position)},
    )  # fmt: skip
    with pytest.raises(RunError, match=message):
        train(small(), stopped)


@pytest.mark.parametrize("position", ["{", "[1]", "7", "null"])
def test_metadata_that_are_no_position(stopped, position):
    path = stopped / CHECKPOINT
    save_file(load_file(path), path, {"format": CHECKPOINT_1, "position": position})
    with pytest.raises(RunError, match=r"state.safetensors is damaged"):
        train(small(), stopped)


def test_weights_that_are_whole_numbers(finished):
    path = finished / WEIGHTS
    rounded = {name: tensor.long() for name, tensor in load_file(path).items()}
    save_file(rounded, path, {"format": WEIGHTS_1})
    with pytest.raises(RunError, match=r"model.safetensors: .* is torch.int64"):
        evaluate_run(finished)


def test_a_digest_that_was_taken_out_is_missed(finished):
    """Its key alone is damaged: the file is not mistaken for one that never had a digest."""
    path = finished / WEIGHTS
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha257"))
    with pytest.raises(RunError, match="does not fit the digest"):
        evaluate_run(finished)
    path = finished / "summary.json"
    path.write_text(path.read_text().replace('"sha256"', '"sha25v"'))
    with pytest.raises(RunError, match=r"summary.json is damaged: it has no entry 'sha256'"):
        train(small(), finished)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"status": "finished"}', "lacks 'step' or 'accuracy'"),
        ('{"step": 60, "accuracy": {}}', "status None, expected one of 'finished'"),
        ('{"status": "finished", "step": NaN}', "cannot read .*: NaN is not a number"),
        ('{"status": "finished", "step": 1e999}', "cannot read .*: 1e999 is not a number"),
        ("[" * 100_000, "cannot read"),
        ('{"status": ["finished"]}', "status"),
    ],
)
def test_a_summary_that_says_nothing(finished, content, message):
    (finished / "summary.json").write_text(content)
    with pytest.raises(RunError, match=message) as error:
        train(small(), finished)
    assert "summary.json" in str(error.value)


def test_a_configuration_that_was_edited(finished):
    """The error says how to have it read all the same; then a value that cannot be is named."""
    path = finished / "config.json"
    content = json.loads(path.read_text())
    content["training"]["eval_examples"] = 41
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match="if it was edited by hand, remove its entry 'sha256'"):
        load_run(finished)
    for key, value in (("batch_size", -1), ("eval_examples", 0), ("seed", 2**40)):
        wrong = {**content, "training": content["training"] | {key: value}}
        path.write_text(json.dumps({k: v for k, v in wrong.items() if k != DIGEST}))
        with pytest.raises(RunError, match=rf"config.json .* training.{key}: got {value}, expected"):
            evaluate_run(finished)


def test_every_reader_takes_the_weights(finished):
    told = told_by(finished / WEIGHTS)
    assert told["format"] == "statemix-weights-2"
    assert len(told[DIGEST]) == 64
    assert load_file(finished / WEIGHTS).keys() == load_run(finished)[1].state_dict().keys()


def test_the_curves_of_a_run_that_is_over(finished, stopped):
    """A summary holds their digest; that of an interrupted run does not bind the lines that come after it."""
    for folder, damaged in ((finished, True), (stopped, False)):
        path, summary = folder / "metrics.jsonl", read_json(folder / "summary.json")
        check_metrics(path, summary)
        path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
        if damaged:
            with pytest.raises(RunError, match=r"metrics.jsonl is damaged"):
                check_metrics(path, summary)
        else:
            check_metrics(path, summary)


def test_json_with_keys_that_are_not_text(tmp_path):
    write_json(tmp_path / "a.json", {"b": {10: 1.0, 9: [2, None]}, "a": "ü"})
    assert read_json(tmp_path / "a.json") == {"b": {"10": 1.0, "9": [2, None]}, "a": "ü"}
