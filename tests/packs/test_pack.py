"""Reading a pack: documents across shards, and damage that is named."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from statemix.packs import ByteTokenizer, Documents, Pack, prepare_pack
from statemix.training.files import RunError
from tests.packs.small import texts


@pytest.fixture
def pack(untouched):
    return Pack(untouched)


def test_documents_and_tokens_are_one_sequence(pack):
    joined = np.concatenate([pack.document(number) for number in range(len(pack))])
    assert len(joined) == pack.tokens
    assert np.array_equal(pack.read(0, pack.tokens), joined)
    seams = np.cumsum([shard["tokens"] for shard in pack.meta["splits"]["train"]["shards"]])[:-1]
    assert len(seams) >= 2
    for seam in seams:
        for start, stop in ((seam - 5, seam + 5), (seam, seam + 1), (seam - 1, seam), (seam, seam)):
            assert np.array_equal(pack.read(start, stop), joined[start:stop])
    assert pack.read(0, pack.tokens).dtype == np.dtype("<u2")
    assert np.count_nonzero(joined == pack.end_of_document) == len(pack)


@pytest.mark.parametrize("number", [-1, 10**6])
def test_documents_that_are_not_there(pack, number):
    with pytest.raises(IndexError, match=f"document: got {number}, expected 0 to {len(pack) - 1}"):
        pack.document(number)
    with pytest.raises(IndexError, match="tokens: got "):
        pack.read(0, pack.tokens + 1)


def test_bits_per_byte(pack):
    """A model that gives every byte one of 256 equal chances and ends for free needs eight bits a byte."""
    loss = pack.bytes * math.log(256) / pack.tokens
    assert pack.bits_per_byte(loss) == pytest.approx(8.0, rel=1e-12)


def test_a_pack_travels_as_its_name(pack):
    pack.document(0)
    sent = pickle.dumps(pack)
    assert len(sent) < 1000
    assert np.array_equal(pickle.loads(sent).document(5), pack.document(5))


def test_what_is_mapped_cannot_be_changed(pack):
    with pytest.raises(ValueError, match="read-only"):
        pack.document(0)[0] = 1


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00002.idx", "train-00000.idx"])
def test_a_missing_shard_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(RunError, match=f"{name} is missing"):
        Pack(folder)
    Pack(folder, "validation")


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00002.idx"])
def test_a_truncated_shard_is_named(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-8])
    with pytest.raises(RunError, match=f"{name} has {len(data) - 8} bytes, expected {len(data)}"):
        Pack(folder)


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00002.bin", "train-00001.idx"])
def test_a_checksum_says_which_file_is_damaged(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / name).write_bytes(data)
    Pack(folder)
    with pytest.raises(
        RunError, match=f"{name} is damaged: its SHA-256 is [0-9a-f]{{12}}…, expected [0-9a-f]{{12}}…"
    ):
        Pack(folder, verify=True)


def test_a_damaged_meta(folder):
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace('"documents": ', '"documents": 1', 1))
    with pytest.raises(RunError, match=r"meta\.json is damaged"):
        Pack(folder)
    meta.write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*meta\.json"):
        Pack(folder)
    meta.unlink()
    with pytest.raises(FileNotFoundError, match=r"is not a pack: it has no meta\.json"):
        Pack(folder)


def test_splits(untouched, tmp_path):
    with pytest.raises(ValueError, match="split: got 'test', expected 'train' or 'validation'"):
        Pack(untouched, "test")
    one = Documents("one", [("a", lambda: texts(1)[0])], {})
    prepare_pack(one, tmp_path, validation=0.0)
    assert len(Pack(tmp_path)) == 1
    with pytest.raises(ValueError, match="has no documents in 'validation'"):
        Pack(tmp_path, "validation")


def test_the_tokenizer_of_a_pack(pack):
    assert isinstance(pack.tokenizer, ByteTokenizer)
    assert (pack.vocab_size, pack.end_of_document) == (257, 256)
