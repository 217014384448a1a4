"""Every source gives its documents once, in one order, and goes on behind any state it has given."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from pathlib import PurePath

import pytest

from statemix.packs import DATA_SETS, Chain, DataSet, Documents, Pack, build_source, prepare_pack
from statemix.training.files import RunError
from tests.packs.small import contents, python, texts


def read(source, state=None):
    return [text for batch, _ in source.batches(state) for text in batch]


def write_jsonl(path, made, column="text"):
    path.write_text("".join(json.dumps({"id": k, column: text}) + "\n" for k, text in enumerate(made)))
    return path


def write_parquet(path, made, rows=130):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table({"text": made, "id": list(range(len(made)))}), path, row_group_size=rows)
    return path


@pytest.fixture
def parquet(tmp_path):
    pytest.importorskip("datasets")
    made = texts(1500)
    files = [write_parquet(tmp_path / f"{k:03}.parquet", made[500 * k : 500 * k + 500]) for k in range(3)]
    return build_source(files), made


@pytest.fixture
def jsonl(tmp_path):
    pytest.importorskip("datasets")
    return build_source([write_jsonl(tmp_path / "a [1]*.jsonl", texts(900))]), texts(900)


@pytest.fixture
def files(tmp_path):
    made = texts(700)
    for k, text in enumerate(made):
        (tmp_path / f"{k:04}.txt").write_text(text, encoding="utf-8")
    return build_source([tmp_path]), made


@pytest.fixture
def mixed(tmp_path):
    """Kinds one after the other: a text file, two JSON-lines files (one stream), a Parquet file."""
    pytest.importorskip("datasets")
    made = texts(1000)
    (tmp_path / "0.md").write_text(made[0], encoding="utf-8")
    write_jsonl(tmp_path / "1.jsonl", made[1:300])
    write_jsonl(tmp_path / "2.jsonl", made[300:600])
    write_parquet(tmp_path / "sub" / "3.parquet", made[600:])
    source = build_source([tmp_path])
    assert isinstance(source, Chain) and len(source.parts) == 3
    return source, made


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "files", "mixed"])
def test_all_documents_and_from_every_state(kind, request):
    source, made = request.getfixturevalue(kind)
    assert read(source) == made
    done = 0
    for batch, state in source.batches(None):
        done += len(batch)
        assert read(source, json.loads(json.dumps(state))) == made[done:]
    assert done == len(made)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "files", "mixed"])
def test_resumed_after_every_batch(kind, request):
    """A stream that was resumed is resumed again, and so on to the end."""
    source, made = request.getfixturevalue(kind)
    taken, state = [], None
    while True:
        batch, state = next(source.batches(state), (None, state))
        if batch is None:
            break
        taken += batch
        state = json.loads(json.dumps(state))
    assert taken == made


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "mixed"])
def test_an_interrupted_stream_ends_with_the_same_files(kind, request, tmp_path_factory):
    source, _ = request.getfixturevalue(kind)
    folder = tmp_path_factory.mktemp(kind)
    prepare_pack(source, folder / "whole", shard_tokens=20_000, validation=0.1)
    for wanted in (2, 3):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, wanted)
            with pytest.raises(RuntimeError, match="stop"):
                prepare_pack(source, folder / "pack", shard_tokens=20_000, validation=0.1)
    prepare_pack(source, folder / "pack", shard_tokens=20_000, validation=0.1)
    assert contents(folder / "pack") == contents(folder / "whole")
    assert len(Pack(folder / "pack").meta["splits"]["train"]["shards"]) >= 3


def stop_after(patch, shards):
    from statemix.packs.writer import Writer

    close = Writer.close_shard

    def closing(self, state):
        close(self, state)
        if self._count == shards:
            raise RuntimeError("stop")

    patch.setattr(Writer, "close_shard", closing)


def fineweb_folder(root, files):
    """A folder laid out like the data set on the hub: files of 200 texts in a subset that the README names."""
    made = texts(200 * files)
    write_parquet(root / "data" / "CC-MAIN" / "0.parquet", ["of another subset"])
    for k in range(files):
        write_parquet(root / "sample" / "10BT" / f"{k:03}_00000.parquet", made[200 * k : 200 * k + 200])
    configs = [("default", "data/*/*"), ("sample-10BT", "sample/10BT/*")]
    entries = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {path}\n"
        for name, path in configs
    )
    (root / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
    return root


@pytest.fixture
def fineweb(tmp_path, monkeypatch):
    """Such a folder in the place of the hub."""
    pytest.importorskip("datasets")
    root = fineweb_folder(tmp_path / "fineweb", files=5)
    monkeypatch.setitem(DATA_SETS, "fineweb", (str(root), DATA_SETS["fineweb"][1]))
    return texts(1000)


def test_a_data_set_by_name_and_subset(fineweb):
    assert read(build_source(["fineweb"])) == fineweb
    assert read(build_source(["fineweb"], subset="default")) == ["of another subset"]
    assert build_source(["fineweb"]).identity["subset"] == "sample-10BT"
    with pytest.raises(RunError, match=r"cannot read fineweb .*sample-3T"):
        read(build_source(["fineweb"], subset="sample-3T"))


UNREACHABLE = """
import sys
from statemix.packs import build_source, prepare_pack
prepare_pack(build_source(["fineweb-edu"]), sys.argv[1])
"""


def test_an_unreachable_data_set(tmp_path):
    """One error, soon, and nothing begun."""
    pytest.importorskip("datasets")
    done = python(
        UNREACHABLE, tmp_path / "pack", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "home")
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "statemix.training.files.RunError: cannot read fineweb-edu (data set HuggingFaceFW/fineweb-edu)"
    )
    assert "Retrying" not in done.stderr
    assert not (tmp_path / "pack").exists()


def test_a_stream_that_breaks_leaves_its_shards(parquet, tmp_path, monkeypatch):
    """The network goes away behind the fifth batch; the same command goes on when it is back."""
    source, _ = parquet
    prepare_pack(source, tmp_path / "whole", shard_tokens=20_000)
    stream = DataSet._stream

    class Breaking:
        def __init__(self, inner):
            self.inner = inner
            self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

        def iter(self, batch_size):
            for number, batch in enumerate(self.inner.iter(batch_size=batch_size)):
                if number == 5:
                    raise ConnectionError("connection reset by peer")
                yield batch

    monkeypatch.setattr(DataSet, "_stream", lambda self: Breaking(stream(self)))
    with pytest.raises(RunError, match=r"cannot read .*: connection reset by peer"):
        prepare_pack(source, tmp_path / "pack", shard_tokens=20_000)
    assert "train-00000.bin" in contents(tmp_path / "pack")
    monkeypatch.undo()
    prepare_pack(source, tmp_path / "pack", shard_tokens=20_000)
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")


def test_a_damaged_file_is_one_error(tmp_path, caplog, capfd):
    pytest.importorskip("datasets")
    before = list(logging.getLogger("datasets").handlers)
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    with pytest.raises(RunError, match=r"cannot read .*a\.jsonl: "):
        read(build_source([tmp_path / "a.jsonl"]))
    path = write_parquet(tmp_path / "a.parquet", texts(50))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"cannot read .*a\.parquet: "):
        read(build_source([path]))
    (tmp_path / "a.txt").write_bytes(b"ends in no character \xc3")
    with pytest.raises(RunError, match=r"cannot read .*a\.txt: .*utf-8"):
        read(build_source([tmp_path / "a.txt"]))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("datasets").handlers == before


def test_of_many_files_one_is_damaged(tmp_path):
    files = [write_parquet(tmp_path / f"{k}.parquet", texts(50)) for k in range(3)]
    data = bytearray(files[1].read_bytes())
    data[4:1000] = bytes(996)  # the footer is whole
    files[1].write_bytes(data)
    with pytest.raises(RunError, match=r"cannot read .*0\.parquet and 2 more: "):
        read(build_source(files))
    files[1].write_bytes(b"no Parquet")
    with pytest.raises(RunError, match=r"cannot read .*0\.parquet and 2 more: .*1\.parquet"):
        read(build_source(files))


def test_columns(tmp_path):
    pytest.importorskip("datasets")
    path = write_jsonl(tmp_path / "a.jsonl", ["one", "two"], column="body")
    assert read(build_source([path], column="body")) == ["one", "two"]
    with pytest.raises(ValueError, match=r"column: .* has no 'text', expected one of id, body"):
        read(build_source([path]))
    with pytest.raises(ValueError, match="id: got int, expected text"):
        read(build_source([path], column="id"))


def test_missing_and_empty_texts_are_left_out(tmp_path):
    pytest.importorskip("datasets")
    lines = [{"text": "one"}, {"text": None}, {"text": ""}, {"id": 3}, {"text": "two\x00 \u2028"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(build_source([tmp_path / "a.jsonl"])) == ["one", "two\x00 \u2028"]


def test_halves_of_characters_are_replaced():
    """They have no UTF-8; a tokenizer would refuse the whole batch."""
    assert read(Documents("halves", [("a", lambda: "a\ud800b"), ("b", lambda: "fine")], {})) == [
        "a?b",
        "fine",
    ]


def test_compressed(tmp_path):
    gzip = pytest.importorskip("gzip")
    pytest.importorskip("datasets")
    plain = write_jsonl(tmp_path / "a.jsonl", texts(50))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read(build_source([tmp_path / "b.jsonl.gz"])) == texts(50)


def test_names_that_are_no_source(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="nowhere does not exist, expected stdlib, fineweb, fineweb-edu, a file"
    ):
        build_source([tmp_path / "nowhere"])
    (tmp_path / "data.bin").write_bytes(b"\x00")
    with pytest.raises(ValueError, match=r"has no files that end in \.parquet, "):
        build_source([tmp_path])
    with pytest.raises(ValueError, match="source: got none, expected stdlib"):
        build_source([])
    (tmp_path / "NOTES").write_text("a file that is named is text")
    assert read(build_source([tmp_path / "NOTES"])) == ["a file that is named is text"]


DIGEST = """
import hashlib, sys
from statemix.packs import build_source
digest = hashlib.sha256()
for texts, _ in build_source(["stdlib"]).batches(None):
    for text in texts:
        digest.update(text.encode() + b"\\0")
print(digest.hexdigest())
"""


def test_the_standard_library_is_the_same_in_every_process(monkeypatch):
    """This one has imported and replaced much; the other has not, and draws other hashes of strings."""
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    monkeypatch.setitem(vars(__import__("builtins")), "added", print)
    digest = hashlib.sha256()
    source = build_source(["stdlib"])
    every = read(source)
    for text in every:
        digest.update(text.encode() + b"\0")
    done = python(DIGEST, PYTHONHASHSEED="7")
    assert done.stdout.strip() == digest.hexdigest(), done.stderr
    assert sum(map(len, every)) > 5e6
    names = [name for name, _ in source.documents]
    files = [PurePath(name) for name in names if name.endswith(".py")]
    assert files == sorted(files)
    assert len(set(names)) == len(names) and "argparse.py" in names and "topic assert" in names
    assert not [name for name in names if "site-packages" in name or "/test/" in name]
    assert any("Return the absolute value of the argument." in text for text in every)
