"""What lies in a pack's folder, and the checks of its files.

meta.json            the whole: source, tokenizer, dtype, splits and shards with their digests; written last
tokenizer.json       the tokenizer
train-00000.bin      ids, little-endian uint16 or uint32
train-00000.idx      int64 [documents, 2], little-endian: where each document ends in the shard, its bytes of UTF-8
validation-00000.…   the same documents' range of the source, the other split
unfinished.json      what a resume needs; gone at the end
.lock                held while a process writes here
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statemix.training.files import RunError, read_json, replace_file

FORMAT = 1

SPLITS = ("train", "validation")

META, UNFINISHED, TOKENIZER, LOCK = "meta.json", "unfinished.json", "tokenizer.json", ".lock"

INDEX_DTYPE = "<i8"

ENDS = {"bin": "tokens", "idx": "documents"}
"""The files of a shard, and what they have one entry of."""


def ids_dtype(dtype: str) -> str:
    """NumPy's name of a pack's dtype, little-endian everywhere."""
    return {"uint16": "<u2", "uint32": "<u4"}[dtype]


def write_parts(path: Path, parts: Iterable[Any]) -> str:
    """Write arrays one after the other, whole or not at all. Returns the file's SHA-256."""
    digest = hashlib.sha256()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for part in parts:
                data = part.tobytes()  # tofile would lose the reason of an error
                file.write(data)
                digest.update(data)

    replace_file(path, write)
    return digest.hexdigest()


def expected_bytes(shard: Mapping[str, Any], end: str, dtype: str) -> int:
    """The size of one file of a shard."""
    width = {"bin": 2 if dtype == "uint16" else 4, "idx": 16}[end]
    return int(shard[ENDS[end]]) * width


def check_shard(folder: Path, shard: Mapping[str, Any], dtype: str, *, content: bool) -> None:
    """RunError that names the file of a shard that is missing, has another size or (`content`) other content."""
    for end, expected in shard["sha256"].items():
        path = folder / f"{shard['name']}.{end}"
        if not path.is_file():
            raise RunError(f"{path} is missing: put it back, or prepare the pack again in another folder")
        size, wanted = path.stat().st_size, expected_bytes(shard, end, dtype)
        if size != wanted:
            raise RunError(f"{path} has {size} bytes, expected {wanted}: it was truncated or replaced")
        if content and (found := file_digest(path)) != expected:
            raise RunError(f"{path} is damaged: its SHA-256 is {found[:12]}…, expected {expected[:12]}…")


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta.json of a finished pack. FileNotFoundError for none, RunError for a damaged one."""
    path = folder / META
    if path.is_file():
        meta = read_json(path)
        if meta.get("format") != FORMAT:
            raise RunError(f"{path}: format {meta.get('format')!r}, expected {FORMAT}")
        return meta
    if (folder / UNFINISHED).is_file():
        raise FileNotFoundError(f"{folder} is an unfinished pack: the command that began it finishes it")
    raise FileNotFoundError(f"{folder} is not a pack: it has no {META} (statemix text prepare writes one)")


def differences(here: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What two recipes differ in, "dtype: 'uint16' in the folder, 'uint32' given"."""
    keys = [key for key in wanted if here.get(key) != wanted[key]]
    return "; ".join(
        f"{key}: {_short(here.get(key))} in the folder, {_short(wanted[key])} given" for key in keys
    )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
