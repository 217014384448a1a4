"""A pack in as few bytes as xz makes of it, for a machine without a network.

Needs the standard library alone; `pack_up` copies this file beside the pack's as unpack.py:

python unpack.py FOLDER
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIST, SCRIPT = "files.json", "unpack.py"
"""What lies beside the compressed files: their sizes and digests, and this file."""

PIECE = 1 << 22
"""Bytes that are read at once."""

FILTERS: dict[str, dict[str, Any]] = {
    ".bin": {"lc": 3, "lp": 1, "pb": 1},
    ".idx": {"lc": 0, "lp": 3, "pb": 3},
}
"""Settings of LZMA by the end of the file's name: numbers of two and of eight bytes."""


def filters(name: str, dictionary: int = 1 << 27) -> list[dict[str, Any]]:
    """The filters with which a file is compressed."""
    own = FILTERS.get(Path(name).suffix, {})
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary, **own}]


def pack_up(pack: Path, folder: Path) -> int:
    """Compress the files of a pack into `folder`, one each, and put unpack.py beside them. Returns the bytes of it all.

    Errors: ValueError for a folder that is not empty, FileNotFoundError for a pack that is none.
    """
    names = ["meta.json", "tokenizer.json"]
    meta = json.loads((pack / "meta.json").read_bytes())
    for split in meta["splits"].values():
        names += [f"{shard['name']}.{end}" for shard in split["shards"] for end in shard["sha256"]]
    folder.mkdir(parents=True, exist_ok=True)
    if others := sorted(path.name for path in folder.iterdir()):
        raise ValueError(f"folder: {folder} holds {others[0]}, expected an empty folder")
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # lzma works outside of Python's lock
        list(threads.map(lambda name: _compress(pack / name, folder / f"{name}.xz"), names))
    entries = {name: {"size": (pack / name).stat().st_size, "sha256": digest(pack / name)} for name in names}
    (folder / LIST).write_text(json.dumps(entries, indent=2) + "\n")
    shutil.copyfile(__file__, folder / SCRIPT)
    return sum(path.stat().st_size for path in folder.iterdir())


def _compress(source: Path, target: Path) -> None:
    with source.open("rb") as plain, lzma.open(target, "wb", filters=filters(source.name)) as packed:
        shutil.copyfileobj(plain, packed, PIECE)


def unpack(folder: Path, pack: Path) -> list[str]:
    """Restore a pack from `folder`: whole, with the same bytes, or not at all. Returns the names of its files.

    A pack that is there already and has the same bytes is left. Errors: ValueError for a file that is missing or
    damaged, or other content in `pack`, naming the file.
    """
    try:
        entries: dict[str, dict[str, Any]] = json.loads((folder / LIST).read_bytes())
    except OSError as error:
        raise ValueError(f"{folder / LIST} cannot be read: {error.strerror}") from None
    if pack.exists():
        for name, entry in entries.items():
            if not (pack / name).is_file() or digest(pack / name) != entry["sha256"]:
                raise ValueError(f"{pack / name} is not the file that was packed: choose another folder")
        return sorted(entries)
    unfinished = pack.with_name(f".{pack.name}.{os.getpid()}")
    try:
        unfinished.mkdir(parents=True)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(
                threads.map(
                    lambda name: _restore(folder / f"{name}.xz", unfinished / name, entries[name]), entries
                )
            )
        unfinished.rename(pack)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sorted(entries)


def _restore(source: Path, target: Path, entry: dict[str, Any]) -> None:
    try:
        with lzma.open(source) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, PIECE)
    except (lzma.LZMAError, EOFError, FileNotFoundError) as error:
        raise ValueError(f"{source} is missing or damaged: {error}") from None
    if target.stat().st_size != entry["size"] or digest(target) != entry["sha256"]:
        raise ValueError(f"{source} is damaged: {target.name} has other content than what was packed")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    for piece in _pieces(path):
        found.update(piece)
    return found.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def main() -> None:
    """Unpack what lies beside this file into the folder that is named."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: python {SCRIPT} FOLDER")
    try:
        names = unpack(Path(__file__).parent, Path(sys.argv[1]))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{sys.argv[1]}: {len(names)} files, all with the digests of the pack")


if __name__ == "__main__":
    main()
