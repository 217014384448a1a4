"""`statemix text`: packs and tokenizers from the command line."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("tokenizers")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "texts").mkdir()
    for k in range(40):
        (tmp_path / "texts" / f"{k:02}.txt").write_text(f"document {k} [bold] of a few words\n" * (k + 1))
    return tmp_path / "texts"


def test_sources_are_listed(statemix):
    shown = statemix("text")
    assert shown.code == 0 and shown.out == statemix("text list").out
    assert all(name in shown.out for name in ("stdlib", "fineweb-edu", ".parquet"))


def test_prepare_and_show(statemix, files):
    done = statemix("text prepare --source texts --out packs/a --validation 0.2")
    assert (done.code, done.err) == (0, "preparing texts/00.txt and 39 more in packs/a\n")
    meta = json.loads((files.parent / "packs" / "a" / "meta.json").read_text())
    total = sum(split["documents"] for split in meta["splits"].values())
    assert total == 40 and done.out.splitlines()[-1] == "pack: packs/a"
    assert statemix("text prepare --source texts --out packs/a --validation 0.2").out == done.out
    shown = statemix("text show packs/a --verify --document 1")
    assert shown.code == 0
    assert "every shard has the content that was written" in shown.out
    assert "[bold] of a few words" in shown.out and "tokenizer: name bytes" in shown.out


def test_files_that_a_shell_found(statemix, files):
    names = [f"texts/{path.name}" for path in sorted(files.iterdir())]
    done = statemix(["text", "prepare", "--source", *names, "--out", "a"])
    assert done.code == 0, done.err
    assert statemix(["text", "prepare", *names, "--out", "b"]).code == 0
    assert (files.parent / "a" / "meta.json").read_bytes() == (files.parent / "b" / "meta.json").read_bytes()


def test_a_tokenizer_of_ones_own(statemix, files):
    done = statemix("text tokenizer --source texts --size 270 --out t.json")
    assert (done.code, done.out) == (0, "tokenizer: t.json, 270 ids\n")
    assert statemix("text prepare --source texts --tokenizer t.json --out packs/t").code == 0
    assert "tokenizer: name t.json" in statemix("text show packs/t").out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "text prepare",
            2,
            "error: source: got none, expected stdlib, fineweb, fineweb-edu, files or folders",
        ),
        ("text prepare --source nowhere", 2, "error: source: nowhere does not exist"),
        (
            "text prepare texts --validation 0.9",
            2,
            "error: validation: got 0.9, expected a number from 0 to 0.5",
        ),
        ("text prepare texts --tokenizer none.json", 2, "error: none.json: No such file or directory"),
        ("text prepare texts --tokenizer texts/00.txt", 2, "error: texts/00.txt is not a tokenizer.json"),
        (
            "text prepare texts --dtype uint8",
            2,
            "error: dtype: got 'uint8', expected 'auto' or 'uint16' or 'uint32'",
        ),
        ("text prepare texts --out texts/00.txt", 2, "error: folder: texts/00.txt is a file"),
        (
            "text prepare texts --out texts",
            2,
            "error: texts holds 00.txt, expected an empty folder or a pack",
        ),
        ("text tokenizer texts --size 200", 2, "error: size: got 200, expected at least 257"),
        ("text show texts", 2, "error: texts is not a pack: it has no meta.json"),
    ],
)
def test_bad_input(statemix, files, line, code, said):
    done = statemix(line)
    assert done.code == code
    assert done.err.splitlines()[-1].startswith(said)
    assert sorted(path.name for path in files.parent.iterdir()) == ["texts"]


def test_a_damaged_pack(statemix, files):
    statemix("text prepare texts --out a")
    data = (files.parent / "a" / "train-00000.bin").read_bytes()
    (files.parent / "a" / "train-00000.bin").write_bytes(b"x" + data[1:])
    done = statemix("text show a --verify")
    assert done.code == 1 and done.err.startswith("error: a/train-00000.bin is damaged: its SHA-256 is ")


def test_ctrl_c(statemix, files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("statemix.packs.prepare.encode", interrupt)
    done = statemix("text prepare texts --out a")
    assert done.code == 130
    assert (
        done.err.splitlines()[-1] == "interrupted: finished shards of a are saved; the same command resumes"
    )
    monkeypatch.undo()
