"""A pack compressed for a machine without a network, and restored there by the standard library alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from statemix_research.language import carry


@pytest.fixture
def pack(tmp_path):
    """The files of a pack, as far as they are looked at."""
    folder = tmp_path / "pack"
    folder.mkdir()
    shard = {"name": "train-00000", "sha256": {"bin": "", "idx": ""}}
    meta = {"splits": {"train": {"shards": [shard]}, "validation": {"shards": []}}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "train-00000.bin").write_bytes(bytes(range(256)) * 1000)
    (folder / "train-00000.idx").write_bytes(b"".join(k.to_bytes(8, "little") for k in range(500)))
    (folder / ".lock").write_text("")
    return folder


@pytest.fixture
def packed(pack, tmp_path):
    assert carry.pack_up(pack, tmp_path / "carry") < 20_000
    return tmp_path / "carry"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_the_script_restores_the_same_bytes(pack, packed, tmp_path):
    command = [sys.executable, "-I", str(packed / carry.SCRIPT), str(tmp_path / "deep" / "restored")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "4 files, all with the digests" in done.stdout
    assert content(tmp_path / "deep" / "restored") == content(pack)
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    (tmp_path / "deep" / "restored" / "train-00000.bin").write_bytes(b"other")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "train-00000.bin is not the file that was packed" in done.stderr


def damage(packed, name):
    """Let a file end too early."""
    path = packed / f"{name}.xz"
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.idx"])
def test_damage_is_named_and_nothing_is_left(packed, tmp_path, name):
    damage(packed, name)
    with pytest.raises(ValueError, match=rf"{name}\.xz is missing or damaged"):
        carry.unpack(packed, tmp_path / "restored")
    assert not (tmp_path / "restored").exists() and not list(tmp_path.glob(".restored*"))
    (packed / f"{name}.xz").unlink()
    with pytest.raises(ValueError, match=rf"{name}\.xz is missing or damaged"):
        carry.unpack(packed, tmp_path / "restored")


def test_other_content_in_a_sound_container_is_seen(packed, tmp_path):
    other = tmp_path / "train-00000.bin"
    other.write_bytes(bytes(256_000))
    carry._compress(other, packed / "train-00000.bin.xz")
    with pytest.raises(ValueError, match=r"train-00000\.bin has other content than what was packed"):
        carry.unpack(packed, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_only_empty_folders_are_filled(pack, packed):
    with pytest.raises(ValueError, match=r"holds files\.json, expected an empty folder"):
        carry.pack_up(pack, packed)
    with pytest.raises(ValueError, match=r"files\.json cannot be read: No such file"):
        carry.unpack(pack, pack)


def test_a_real_pack_is_whole(tmp_path):
    pytest.importorskip("filelock")
    packs = pytest.importorskip("statemix.packs")
    packs.prepare_pack(packs.build_source(["stdlib"]), tmp_path / "pack", validation=0.1, max_tokens=300_000)
    carry.pack_up(tmp_path / "pack", tmp_path / "carry")
    carry.unpack(tmp_path / "carry", tmp_path / "restored")
    for split in ("train", "validation"):
        restored, before = (packs.Pack(tmp_path / name, split, verify=True) for name in ("restored", "pack"))
        assert restored.meta == before.meta and restored.tokens == before.tokens
    listed = json.loads((tmp_path / "carry" / carry.LIST).read_text())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "restored").iterdir()
    }
    assert found == {name: entry["sha256"] for name, entry in listed.items()}


def test_the_command(research, pack, tmp_path):
    done = research(["carry", str(pack), str(tmp_path / "out")])
    assert done.code == 0 and "python unpack.py" in done.out
    assert carry.unpack(tmp_path / "out", tmp_path / "restored") == sorted(content(pack))
    done = research(["carry", str(tmp_path), str(tmp_path / "other")])
    assert done.code == 2 and "is not a pack" in done.err
