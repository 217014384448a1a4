"""Tokenizers: text comes back from its ids, special tokens in text are text, and what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Implementation
from tokenizers import models

from statemix.packs import (
    ByteTokenizer,
    FileTokenizer,
    Pack,
    build_source,
    choose_dtype,
    load_tokenizer,
    prepare_pack,
    tokenizer_digest,
    train_tokenizer,
)
from statemix.training.files import RunError
from tests.packs.small import contents, prepare, python, source, texts

STRANGE = ["", "plain", "é ö 漢字 🙂", "\x00\r\n\t", "<|endoftext|> inside", " two  spaces ", "a" * 5000]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """The file of a small BPE."""
    path = tmp_path_factory.mktemp("bpe") / "bpe.json"
    train_tokenizer(source(), path, size=300)
    return path


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_text_comes_back(kind, request):
    tokenizer = load_tokenizer("bytes" if kind == "bytes" else request.getfixturevalue("bpe"))
    ids, lengths = tokenizer.encode(STRANGE)
    ends = lengths.cumsum()
    assert len(ids) == ends[-1]
    assert ids[ends - 1].tolist() == [tokenizer.end_of_document] * len(STRANGE)
    assert np.count_nonzero(ids == tokenizer.end_of_document) == len(STRANGE)
    assert ids.max() < tokenizer.vocab_size
    pieces = np.split(ids, ends[:-1])
    assert [tokenizer.decode(piece[:-1]) for piece in pieces] == STRANGE
    assert tokenizer.decode(pieces[1]) == "plain<|endoftext|>"


def test_bytes_are_bytes():
    assert ByteTokenizer().encode(["né"])[0].tolist() == [110, 195, 169, 256]
    assert ByteTokenizer().decode([195, 110]) == "\ufffdn"
    assert ByteTokenizer().vocab_size == 257


def test_the_byte_tokenizer_in_other_programs(tmp_path):
    """Its tokenizer.json gives the same ids."""
    (tmp_path / "tokenizer.json").write_bytes(ByteTokenizer().content)
    other = FileTokenizer(tmp_path / "tokenizer.json")
    assert (other.vocab_size, other.end_of_document) == (257, 256)
    made = [*texts(50), *STRANGE, "".join(map(chr, range(300)))]
    for here, there in zip(ByteTokenizer().encode(made), other.encode(made), strict=True):
        assert np.array_equal(here, there)
    assert tokenizer_digest(other) == tokenizer_digest(ByteTokenizer())


TRAINED = """
import sys
from statemix.packs import train_tokenizer
from tests.packs.small import source
train_tokenizer(source(), sys.argv[1], size=300)
"""


def test_training_is_deterministic(bpe, tmp_path):
    """On another number of threads, too."""
    done = python(TRAINED, tmp_path / "again.json", RAYON_NUM_THREADS="3", PYTHONHASHSEED="5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.json").read_bytes() == bpe.read_bytes()
    tokenizer = FileTokenizer(bpe)
    assert (tokenizer.vocab_size, tokenizer.end_of_document, tokenizer.end_token) == (300, 0, "<|endoftext|>")
    assert len(tokenizer.encode(texts(50))[0]) < 0.4 * len(ByteTokenizer().encode(texts(50))[0])


def test_training_reads_so_much_and_no_more(tmp_path):
    class Counting:
        read = 0

        def batches(self, state):
            for batch in source(3000).batches(state):
                self.read += 1
                yield batch

    counting = Counting()
    train_tokenizer(counting, tmp_path / "a.json", size=300, max_bytes=1)
    assert counting.read == 1


@pytest.mark.parametrize("size", [0, 256])
def test_a_size_without_room_for_the_bytes(tmp_path, size):
    with pytest.raises(ValueError, match=f"size: got {size}, expected at least 257"):
        train_tokenizer(source(), tmp_path / "a.json", size=size)
    assert not (tmp_path / "a.json").exists()


def test_a_pack_of_a_bpe(bpe, tmp_path):
    prepare(tmp_path / "pack", tokenizer=FileTokenizer(bpe), validation=0.0)
    pack = Pack(tmp_path / "pack", verify=True)
    assert [pack.text(k) for k in range(len(pack))] == texts()
    assert pack.bytes == sum(len(text.encode()) for text in texts())
    assert pack.bytes_per_token == pack.bytes / pack.tokens > 2
    assert (tmp_path / "pack" / "tokenizer.json").read_bytes() == bpe.read_bytes()


THREADS = """
import sys
from statemix.packs import FileTokenizer
from tests.packs.small import prepare
prepare(sys.argv[1], tokenizer=FileTokenizer(sys.argv[2]))
"""


def test_the_number_of_threads_changes_nothing(bpe, tmp_path):
    for threads in ("1", "4"):
        done = python(THREADS, tmp_path / threads, bpe, RAYON_NUM_THREADS=threads)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_truncation_padding_and_post_processing_of_a_file_are_off(bpe, tmp_path):
    from tokenizers.processors import TemplateProcessing

    other = Implementation.from_file(str(bpe))
    other.enable_truncation(5)
    other.enable_padding(length=9)
    other.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    other.save(str(tmp_path / "other.json"))
    here, there = (
        FileTokenizer(bpe).encode(texts(20)),
        FileTokenizer(tmp_path / "other.json").encode(texts(20)),
    )
    assert all(np.array_equal(one, two) for one, two in zip(here, there, strict=True))


def words(size, *tokens):
    """A tokenizer.json of words w0, w1, …"""
    vocabulary = {f"w{k}": k for k in range(size)} | {token: size + k for k, token in enumerate(tokens)}
    return Implementation(models.WordLevel(vocabulary, unk_token="w0"))


def test_the_token_that_ends_a_document(tmp_path):
    path = tmp_path / "words.json"
    words(10, "<stop>").save(str(path))
    with pytest.raises(
        ValueError, match=r"end_token: .*words.json has none of <\|endoftext\|>, .*, expected a token that"
    ):
        load_tokenizer(path)
    assert load_tokenizer(path, "<stop>").end_of_document == 10
    with pytest.raises(ValueError, match="has none of <halt>, expected a token"):
        load_tokenizer(path, "<halt>")


def test_a_vocabulary_too_large_for_the_dtype(tmp_path):
    path = tmp_path / "words.json"
    words(70_000, "</s>").save(str(path))
    large = load_tokenizer(path)
    said = r"dtype: got 'uint16' \(65536 ids\), expected 'auto' or 'uint32': the tokenizer words.json has 70001 ids"
    with pytest.raises(ValueError, match=said):
        prepare(tmp_path / "pack", tokenizer=large, dtype="uint16")
    assert not (tmp_path / "pack").exists()
    prepare(tmp_path / "pack", tokenizer=large, shard_tokens=300)
    pack = Pack(tmp_path / "pack", verify=True)
    assert pack.dtype == "uint32" and pack.document(0)[-1] == 70_000
    words(65_535, "</s>").save(str(path))
    assert choose_dtype(load_tokenizer(path)) == "uint16"
    words(65_536, "</s>").save(str(path))
    assert choose_dtype(load_tokenizer(path)) == "uint32"


def test_ids_with_gaps(tmp_path):
    model = {"type": "WordLevel", "vocab": {"a": 0, "</s>": 69_000}, "unk_token": "a"}
    (tmp_path / "gaps.json").write_text(json.dumps({"version": "1.0", "model": model, "added_tokens": []}))
    assert load_tokenizer(tmp_path / "gaps.json").vocab_size == 69_001


def test_what_is_no_tokenizer(tmp_path):
    (tmp_path / "a.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match=r"a\.json is not a tokenizer\.json: "):
        load_tokenizer(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_tokenizer(tmp_path / "none.json")


def test_a_tokenizer_that_does_not_match(bpe, folder, tmp_path):
    before = contents(folder)
    with pytest.raises(ValueError, match="holds a finished pack of other settings: tokenizer: "):
        prepare(folder, tokenizer=FileTokenizer(bpe))
    assert contents(folder) == before
    pack = Pack(folder)
    pack.check_tokenizer(ByteTokenizer())
    with pytest.raises(
        ValueError, match=r"tokenizer: got bpe.json \(300 ids, .*\), expected that of .*: bytes \(257 ids"
    ):
        pack.check_tokenizer(FileTokenizer(bpe))
    pack.check_vocab_size(257)
    pack.check_vocab_size(320)
    with pytest.raises(ValueError, match=r"vocab_size: got 256, expected at least 257: .* tokenizer bytes"):
        pack.check_vocab_size(256)


def test_a_pack_whose_tokenizer_was_exchanged(bpe, tmp_path):
    prepare(tmp_path / "pack", tokenizer=FileTokenizer(bpe))
    (tmp_path / "pack" / "tokenizer.json").write_bytes(bpe.read_bytes() + b"\n")
    with pytest.raises(
        RunError, match=r"tokenizer.json is not the tokenizer bpe.json with which the pack was written"
    ):
        Pack(tmp_path / "pack").text(0)
    (tmp_path / "pack" / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"tokenizer\.json is missing"):
        Pack(tmp_path / "pack").text(0)


def test_a_file_may_have_any_name(bpe, tmp_path):
    (tmp_path / "bytes").write_bytes(bpe.read_bytes())
    prepare(tmp_path / "pack", tokenizer=FileTokenizer(tmp_path / "bytes"), validation=0.0)
    assert Pack(tmp_path / "pack").text(0) == texts()[0]


def test_a_standard_library_bpe(tmp_path):
    """On real text a thousand ids save more than half of the tokens."""
    stdlib = build_source(["stdlib"])
    tokenizer = train_tokenizer(stdlib, tmp_path / "t.json", size=1024, max_bytes=300_000)
    prepare_pack(stdlib, tmp_path / "pack", tokenizer, max_tokens=50_000)
    assert Pack(tmp_path / "pack").bytes_per_token > 2
