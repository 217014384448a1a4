"""A trained model and its tokenizer, read back; packs that do not fit it."""

from __future__ import annotations

import shutil

import pytest
import torch

pytest.importorskip("safetensors")

from statemix.lm import (
    folder_tokenizer,
    load_language_model,
    load_model,
    open_pack,
    save_tokenizer,
    train_language_model,
)
from statemix.lm.loading import as_hugging_face
from statemix.packs import ByteTokenizer, Pack, tokenizer_digest
from statemix.training.files import RunError
from tests.lm.small import config
from tests.lm.trained import leave_run
from tests.packs.small import prepare, source


@pytest.fixture(scope="session")
def bpe(tmp_path_factory):
    """A tokenizer.json of 300 ids, and a pack made with it."""
    pytest.importorskip("tokenizers")
    from statemix.packs import train_tokenizer

    folder = tmp_path_factory.mktemp("bpe")
    tokenizer = train_tokenizer(source(), folder / "tokenizer.json", 300)
    prepare(folder / "pack", tokenizer=tokenizer)
    return folder


def test_a_run(trained, held_out):
    loaded = load_model(trained)
    _, model = load_language_model(trained)
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.model(tokens)[0], model(tokens)[0])
    assert not loaded.model.training and loaded.length == 64
    assert tokenizer_digest(loaded.tokenizer) == tokenizer_digest(held_out.tokenizer)
    assert open_pack(loaded).folder == held_out.folder and open_pack(loaded).split == "validation"
    assert open_pack(loaded, split="train").tokens > held_out.tokens


def test_a_run_without_a_tokenizer_takes_that_of_its_pack(trained):
    (trained / "tokenizer.json").unlink()
    assert load_model(trained).tokenizer.name == "bytes"


def test_a_tokenizer_keeps_its_bytes_and_its_end(bpe, tmp_path):
    for tokenizer in (ByteTokenizer(), Pack(bpe / "pack").tokenizer):
        save_tokenizer(tmp_path, tokenizer)
        again = folder_tokenizer(tmp_path)
        assert type(again) is type(tokenizer) and again.content == tokenizer.content
        assert again.end_of_document == tokenizer.end_of_document
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert fast("a few words").input_ids == again.encode(["a few words"])[0][:-1].tolist()
    assert fast.eos_token_id == again.end_of_document


def test_a_tokenizer_that_transformers_wrote_is_the_same(bpe, tmp_path):
    pytest.importorskip("transformers")
    from statemix.lm import fast_tokenizer

    trained = leave_run(tmp_path / "run", Pack(bpe / "pack"))
    fast_tokenizer(Pack(bpe / "pack").tokenizer).save_pretrained(trained)
    loaded = load_model(trained)
    assert tokenizer_digest(loaded.tokenizer) != tokenizer_digest(Pack(bpe / "pack").tokenizer)
    assert open_pack(loaded).folder == bpe / "pack"


def test_a_pack_of_another_tokenizer(trained, held_out, bpe):
    digests = [tokenizer_digest(one.tokenizer)[:12] for one in (Pack(bpe / "pack"), held_out)]
    with pytest.raises(ValueError, match=rf"SHA-256 {digests[0]}….*expected that of .*SHA-256 {digests[1]}…"):
        open_pack(load_model(trained), bpe / "pack")
    with pytest.raises(ValueError, match=r"tokenizer: got tokenizer.json of 300 ids, expected at most 257"):
        load_model(trained, bpe / "tokenizer.json")


def test_folders_that_are_nothing(trained, tmp_path):
    for error in (RunError, ValueError):  # a mistake of who asks, too
        with pytest.raises(error, match="missing does not exist: expected the folder of a run"):
            load_model(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"config.json does not exist"):
        load_model(tmp_path / "empty")
    (trained / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model.safetensors does not exist"):
        load_model(trained)


def test_a_damaged_configuration(trained):
    (trained / "config.json").write_text("[1, 2")
    with pytest.raises(RunError, match=r"config.json"):
        load_model(trained)


def test_no_tokenizer_anywhere(held_out, tmp_path):
    copy = Pack(shutil.copytree(held_out.folder, tmp_path / "pack"))
    trained = leave_run(tmp_path / "run", copy)
    (trained / "tokenizer.json").unlink()
    shutil.rmtree(copy.folder)
    with pytest.raises(ValueError, match=r"tokenizer: .* has no tokenizer.json"):
        load_model(trained)
    with pytest.raises(FileNotFoundError, match="is not a pack"):
        open_pack(load_model(trained, "bytes"))


def test_a_hugging_face_folder(trained, held_out, tmp_path):
    pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)
    from statemix.lm import as_hugging_face, evaluate

    loaded, folder = load_model(trained), tmp_path / "hf"
    as_hugging_face(loaded).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"has no tokenizer.json, expected one there"):
        load_model(folder)
    save_tokenizer(folder, loaded.tokenizer)
    again = load_model(folder)
    assert again.config is None and again.length == 2048
    with pytest.raises(ValueError, match="pack: missing"):
        open_pack(again)
    first, second = (evaluate(one.model, held_out, max_tokens=500) for one in (loaded, again))
    assert second.loss == pytest.approx(first.loss, rel=1e-5)


def test_a_run_whose_layers_have_arguments_of_their_own(held_out, tmp_path):
    pytest.importorskip("transformers")
    rows = ["mixer.hard=[true, false]", "mixer.learned_initial_state=[true, false]"]
    made = config(held_out.folder, *rows, "training.steps=1")
    train_language_model(made, tmp_path / "run", progress=False)
    loaded = load_model(tmp_path / "run")
    assert [layer.mixer.hard for layer in loaded.model.layers] == [True, False]
    with pytest.raises(ValueError, match=r"mixer.hard: got \[True, False\], expected one value"):
        as_hugging_face(loaded)
