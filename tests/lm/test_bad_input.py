"""What is wrong is said before work begins, or ends it with the earlier state whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs the extra `lm`")
pytest.importorskip("accelerate", reason="needs the extra `lm`")

from statemix.lm import load_language_model, train_language_model
from statemix.lm.train import fill_in
from statemix.packs import Pack
from statemix.training.files import RunError
from tests.lm.small import config, finish, launch, lines, losses, weights
from tests.packs.small import prepare


@pytest.fixture
def copy(whole, tmp_path):
    """A whole run of one's own that has to do its last steps again."""
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("summary.json", "model.safetensors"):
        (folder / name).unlink()
    return folder


def test_no_pack(tmp_path):
    with pytest.raises(ValueError, match=r"data\.pack: missing, expected the folder of a pack"):
        train_language_model(config(""), tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="is not a pack"):
        train_language_model(config(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_truncated_pack(pack, tmp_path):
    folder = shutil.copytree(pack, tmp_path / "pack")
    shard = next(folder.glob("train-*.bin"))
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(RunError, match=rf"{shard.name} has \d+ bytes, expected"):
        train_language_model(config(folder), tmp_path / "run")


def test_a_pack_with_more_ids_than_the_model(pack, tmp_path):
    with pytest.raises(ValueError, match=r"model\.vocab_size: got 100, expected at least 257"):
        train_language_model(config(pack, "model.vocab_size=100"), tmp_path / "run")
    assert fill_in(config(pack, "model.vocab_size=300"), Pack(pack)).model.vocab_size == 300


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.dim=24", "model.dim: 16 in the folder, 24 given"),
        ("mixer.block_size=2", "mixer.block_size: 4 in the folder, 2 given"),
        ("training.steps=30", "training.steps: 24 in the folder, 30 given"),
    ],
)
def test_a_folder_of_another_configuration(pack, copy, setting, said):
    before = sorted(path.name for path in copy.rglob("*"))
    with pytest.raises(RunError, match=f"holds another run: .*{said}"):
        train_language_model(config(pack, setting), copy)
    assert sorted(path.name for path in copy.rglob("*")) == before


def test_a_folder_of_another_pack(copy, tmp_path):
    prepare(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match=r"data\.digest: '\w+' in the folder"):
        train_language_model(config(tmp_path / "other"), copy)


def test_the_same_pack_in_another_place(pack, copy, whole, tmp_path):
    moved = shutil.copytree(pack, tmp_path / "moved")
    assert train_language_model(config(moved, "training.checkpoint_every=7"), copy)["status"] == "finished"
    assert weights(copy) == weights(whole)


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_as_good(pack, copy, whole):
    newest = copy / "checkpoints" / "step-00000020"
    file = next(newest.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunError, match=rf"{file.name} has \d+ bytes, expected \d+: remove .*step-00000020"):
        train_language_model(config(pack), copy)
    shutil.rmtree(newest)
    train_language_model(config(pack), copy)
    assert weights(copy) == weights(whole)


def test_a_checkpoint_of_another_run(pack, copy):
    position = copy / "checkpoints" / "step-00000020" / "position.json"
    content = json.loads(position.read_text())
    del content["sha256"]
    position.write_text(json.dumps({**content, "run": "other"}))
    with pytest.raises(RunError, match="belongs to another run"):
        train_language_model(config(pack), copy)


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(pack, whole, tmp_path):
    full = (
        "import resource\nfrom statemix.lm.checkpoint import Checkpoints as C\nplain = C.save\n"
        "def save(self, step, *a):\n"
        "    if step == 10: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))\n"
        "    plain(self, step, *a)\nC.save = save"
    )
    errors = finish(launch(pack, tmp_path, code=full), codes=[1])
    assert "cannot write" in errors[0] and "File too large (what was saved before is untouched)" in errors[0]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
    train_language_model(config(pack), tmp_path, progress=False)
    assert losses(tmp_path) == losses(whole) and weights(tmp_path) == weights(whole)


def test_a_finished_run_is_not_trained_again(pack, whole):
    before = len(lines(whole, "start"))
    summary = train_language_model(config(pack), whole)
    assert summary["status"] == "finished" and summary["step"] == 24 and len(lines(whole, "start")) == before


@pytest.mark.slow
def test_a_batch_without_equal_shares_says_so_in_every_process(pack, tmp_path):
    for error in finish(launch(pack, tmp_path, "training.batch_size=9", processes=2), codes=[1, 1]):
        assert "training.batch_size: got 9, expected a multiple of the 2 processes" in error


def test_a_trained_model_is_read_back(whole):
    made, model = load_language_model(whole)
    assert made.model.vocab_size == 257 and not model.training
    with pytest.raises(RunError, match=r"does not exist"):
        load_language_model(Path(whole) / "nothing")
