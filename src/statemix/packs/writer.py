"""The folder of a pack while it is written: shard after shard, each whole before the next begins.

After every shard, unfinished.json names what is done and the state of the source behind it. A process that is killed at
any point loses at most the shard that it was filling, and the next one writes the same shards again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from statemix.packs.layout import (
    INDEX_DTYPE,
    META,
    SPLITS,
    TOKENIZER,
    UNFINISHED,
    check_shard,
    differences,
    ids_dtype,
    read_meta,
    write_parts,
)  # fmt: skip
from statemix.training.files import abandoned, read_json, replace_file, write_json, writing


class Encoded(NamedTuple):
    """A batch of documents: ids [tokens]; tokens, bytes of UTF-8 and whether held out, [documents]."""

    ids: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]
    bytes: np.ndarray[Any, Any]
    held_out: np.ndarray[Any, Any]


class Writer:
    """Writes one pack into `folder`, or goes on with it. recipe: what the pack's content follows from.

    Errors: ValueError when the folder holds something else, RunError for a damaged file of it.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any], tokenizer: bytes, *, resume: bool) -> None:
        self.folder, self.recipe = folder, dict(recipe)
        self.state: dict[str, Any] | None = None
        """Of the source, behind the last shard."""
        self._shards: list[dict[str, Any]] = []
        self._count = 0
        self._open: list[Encoded] = []
        self._remove_leftovers()
        self.finished = (folder / META).is_file()
        """Whether the folder holds this pack already, and nothing is to do."""
        if self.finished:
            meta = read_meta(folder)
            self._check(meta["recipe"], "a finished pack", "choose another folder")
            (folder / UNFINISHED).unlink(missing_ok=True)
        elif resume and (there := self._unfinished()):
            self._continue(there)
        else:
            self._begin()
        if not self.finished:
            replace_file(folder / TOKENIZER, lambda temporary: temporary.write_bytes(tokenizer))

    def _remove_leftovers(self) -> None:
        for path in self.folder.glob(".*.tmp"):
            if abandoned(path):
                path.unlink(missing_ok=True)

    def _unfinished(self) -> dict[str, Any] | None:
        """What an earlier process left; None without a shard."""
        path = self.folder / UNFINISHED
        there = read_json(path) if path.is_file() else {"count": 0}
        return there if there["count"] else None

    def _begin(self) -> None:
        """Claim an empty folder, or one that holds an unfinished pack, which is discarded."""
        others = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        if others and UNFINISHED not in others:
            raise ValueError(f"{self.folder} holds {others[0]}, expected an empty folder or a pack")
        self._save()  # from here on, nobody goes on with what is removed
        for split in SPLITS:
            for path in self.folder.glob(f"{split}-*.*"):
                path.unlink()

    def _continue(self, there: Mapping[str, Any]) -> None:
        mend = "choose another folder, or discard it with --no-resume"
        self._check(there["recipe"], "an unfinished pack", mend)
        self.state, self._shards, self._count = there["state"], there["shards"], there["count"]
        for shard in self._shards:
            check_shard(self.folder, shard, self.recipe["dtype"], content=True)

    def _save(self) -> None:
        content = {"recipe": self.recipe, "state": self.state, "count": self._count, "shards": self._shards}
        write_json(self.folder / UNFINISHED, content)

    def _check(self, recipe: Mapping[str, Any], what: str, mend: str) -> None:
        if different := differences(recipe, self.recipe):
            raise ValueError(f"{self.folder} holds {what} of other settings: {different}; {mend}")

    @property
    def open_tokens(self) -> int:
        """Of documents that no shard holds yet."""
        return sum(len(batch.ids) for batch in self._open)

    def total(self, what: str, splits: tuple[str, ...] = SPLITS) -> int:
        """Documents, tokens or bytes of all finished shards."""
        return sum(shard[what] for shard in self._shards if shard["name"].rpartition("-")[0] in splits)

    def add(self, batch: Encoded) -> None:
        """Take a batch; nothing is written before `close_shard`."""
        self._open.append(batch)

    def close_shard(self, state: Mapping[str, Any]) -> None:
        """Write what is open; `state` is the source's behind it. RunError when it cannot be written."""
        for split in SPLITS:
            self._write(split, f"{split}-{self._count:05}")
        self._count += 1
        self._open = []
        self.state = dict(state)
        self._save()

    def _write(self, split: str, name: str) -> None:
        """One split's documents of a shard; no files for none."""
        mine = [batch.held_out == (split == "validation") for batch in self._open]
        lengths = np.concatenate([batch.lengths[m] for batch, m in zip(self._open, mine, strict=True)])
        sizes = np.concatenate([batch.bytes[m] for batch, m in zip(self._open, mine, strict=True)])
        if not len(lengths):
            return
        dtype = ids_dtype(self.recipe["dtype"])
        parts = (
            batch.ids[np.repeat(m, batch.lengths)].astype(dtype)
            for batch, m in zip(self._open, mine, strict=True)
        )
        index = np.stack([lengths.cumsum(), sizes], axis=1).astype(INDEX_DTYPE)
        self._shards.append({
            "name": name, "documents": len(lengths), "tokens": int(lengths.sum()), "bytes": int(sizes.sum()),
            "sha256": {
                "bin": write_parts(self.folder / f"{name}.bin", parts),
                "idx": write_parts(self.folder / f"{name}.idx", [index]),
            },
        })  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """Write meta.json, and the pack is there. Returns its content. ValueError for a source without text."""
        if not self._shards:
            raise ValueError(f"source: {self.recipe['source']} has no text")
        splits = {split: self._summary(split) for split in SPLITS}
        write_json(
            self.folder / META, {"format": self.recipe["format"], "recipe": self.recipe, "splits": splits}
        )
        with writing(self.folder / UNFINISHED):
            (self.folder / UNFINISHED).unlink(missing_ok=True)
        return read_meta(self.folder)

    def _summary(self, split: str) -> dict[str, Any]:
        shards = [shard for shard in self._shards if shard["name"].startswith(f"{split}-")]
        totals = {what: self.total(what, (split,)) for what in ("documents", "tokens", "bytes")}
        return {**totals, "shards": shards}
