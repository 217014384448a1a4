"""A pack holds every document, once, in one of two splits that no order and no interruption changes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from statemix.packs import ByteTokenizer, Documents, Pack, prepare_pack
from statemix.packs.prepare import held_out
from tests.packs.small import contents, prepare, source, texts


def packed(folder, split):
    pack = Pack(folder, split)
    return [pack.text(number) for number in range(len(pack))]


def test_every_document_is_in_one_split(untouched):
    train, validation = packed(untouched, "train"), packed(untouched, "validation")
    assert Counter(train + validation) == Counter(texts())
    assert [text for text in texts() if not held_out(text.encode(), 0.1)] == train
    assert 30 <= len(validation) <= 90
    assert not set(train) & set(validation)


def test_the_files_are_what_meta_says(untouched):
    meta = json.loads((untouched / "meta.json").read_text())
    assert len(meta["splits"]["train"]["shards"]) >= 3
    for split in ("train", "validation"):
        mine = packed(untouched, split)
        pack = Pack(untouched, split, verify=True)
        assert pack.bytes == sum(len(text.encode()) for text in mine)
        assert pack.tokens == pack.bytes + len(mine)
        assert [pack.document_bytes(k) for k in range(len(pack))] == [len(t.encode()) for t in mine]
    shards = [shard["name"] for split in meta["splits"].values() for shard in split["shards"]]
    named = {f"{name}.{end}" for name in shards for end in ("bin", "idx")}
    assert set(contents(untouched)) == {"meta.json", "tokenizer.json"} | named


def test_the_bytes_on_disk(untouched):
    """Little-endian, one document after the other: what any program can map."""
    ids = np.fromfile(untouched / "train-00000.bin", dtype="<u2")
    index = np.fromfile(untouched / "train-00000.idx", dtype="<i8").reshape(-1, 2)
    first = packed(untouched, "train")[0].encode()
    assert ids[: index[0, 0]].tolist() == [*first, 256]
    assert index[0].tolist() == [len(first) + 1, len(first)]
    assert index[-1, 0] == len(ids)


def test_splits_do_not_depend_on_the_order(untouched, tmp_path):
    turned = [(f"{k}", lambda text=text: text) for k, text in enumerate(reversed(texts()))]
    prepare_pack(Documents("turned", turned, {}), tmp_path / "turned", validation=0.1)
    for split in ("train", "validation"):
        assert Counter(packed(tmp_path / "turned", split)) == Counter(packed(untouched, split))


def test_a_larger_share_holds_the_smaller(tmp_path):
    shares = [{text for text in texts() if held_out(text.encode(), share)} for share in (0.0, 0.05, 0.2, 0.5)]
    assert shares[0] == set() and shares[1] < shares[2] < shares[3]


def test_max_tokens_ends_behind_the_document_that_fills_it(untouched, tmp_path):
    meta = prepare(tmp_path / "cut", max_tokens=30_000, validation=0.0)
    sizes = np.cumsum([len(text.encode()) + 1 for text in texts()])
    documents = int(np.searchsorted(sizes, 30_000)) + 1
    assert meta["splits"]["train"]["documents"] == documents
    assert meta["splits"]["train"]["tokens"] == sizes[documents - 1] >= 30_000
    assert packed(tmp_path / "cut", "train") == texts()[:documents]


def test_a_finished_pack_is_left_alone(folder):
    before = contents(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    prepare(folder)
    assert contents(folder) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize(
    "options", [{"validation": 0.2}, {"seed": 1}, {"dtype": "uint32"}, {"shard_tokens": 9}]
)
def test_a_finished_pack_of_other_settings_is_refused(folder, options):
    before = contents(folder)
    for resume in (True, False):
        with pytest.raises(ValueError, match="holds a finished pack of other settings: "):
            prepare(folder, resume=resume, **options)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation": 0.6}, "validation: got 0.6, expected a number from 0 to 0.5"),
        ({"validation": float("nan")}, "validation: got nan"),
        ({"shard_tokens": 0}, "shard_tokens: got 0, expected an integer of at least 1"),
        ({"max_tokens": -5}, "max_tokens: got -5, expected an integer of at least 1"),
        ({"dtype": "uint8"}, "dtype: got 'uint8', expected 'auto' or 'uint16' or 'uint32'"),
    ],
)
def test_arguments_are_checked_before_any_work(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        prepare(tmp_path / "pack", **options)
    assert not (tmp_path / "pack").exists()


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "train-00000.bin").write_text("of a pack that lost its meta.json")
    with pytest.raises(ValueError, match=r"holds mine.txt, expected an empty folder or a pack"):
        prepare(tmp_path)
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        prepare(tmp_path / "mine.txt")
    assert (tmp_path / "train-00000.bin").read_text() == "of a pack that lost its meta.json"


def test_no_text(tmp_path):
    nothing = Documents("nothing", [("a", lambda: ""), ("b", lambda: "")], {})
    with pytest.raises(ValueError, match="has no text"):
        prepare_pack(nothing, tmp_path / "pack")


def test_an_end_of_document_inside_a_document_is_refused(tmp_path):
    """A tokenizer whose end token is an ordinary one would put boundaries where there are none."""

    class Ordinary(ByteTokenizer):
        end_of_document = ord("s")

    with pytest.raises(ValueError, match="inside a document"):
        prepare_pack(source(), tmp_path / "pack", Ordinary())


def test_documents_of_any_size_fit_any_shard(tmp_path):
    sizes = [1, 50_000, 3, 7, 100_000, 2]
    documents = [(str(n), lambda n=n: "x" * n) for n in sizes]
    prepare_pack(Documents("sizes", documents, {}), tmp_path / "pack", shard_tokens=10, validation=0.0)
    pack = Pack(tmp_path / "pack", verify=True)
    assert [len(pack.document(k)) - 1 for k in range(len(pack))] == sizes
