"""Reading a pack: its documents, its tokens as one sequence, and the numbers that a loss needs."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from statemix.packs.layout import (
    INDEX_DTYPE,
    SPLITS,
    TOKENIZER,
    check_shard,
    file_digest,
    ids_dtype,
    read_meta,
)
from statemix.packs.tokenizer import (
    ByteTokenizer,
    FileTokenizer,
    Tokenizer,
    describe_tokenizer,
    tokenizer_digest,
)  # fmt: skip
from statemix.training.files import RunError


class Pack:
    """One split of a pack: documents of token ids, each ended by `end_of_document`.

    folder: what `prepare_pack` wrote. split: "train" or "validation". verify: also compare the SHA-256 of every shard,
    which reads them whole; their presence and sizes are always checked. Files are mapped, not read, and opened where
    they are first used, so that a pack can be sent to other processes. Errors: FileNotFoundError for no pack, RunError
    that names a missing, truncated or damaged file, ValueError for another split or one without documents.

    tokens, bytes: of the split, its text in UTF-8. vocab_size: ids are 0 … vocab_size - 1.

    >>> import tempfile
    >>> from statemix.packs import build_source, prepare_pack
    >>> folder = tempfile.mkdtemp()
    >>> meta = prepare_pack(build_source(["stdlib"]), folder, validation=0.0, max_tokens=10_000)
    >>> pack = Pack(folder)
    >>> pack.text(0)[:22], int(pack.document(0)[-1])
    ('The "assert" statement', 256)
    """

    def __init__(self, folder: str | Path, split: str = "train", *, verify: bool = False) -> None:
        self.folder, self.split = Path(folder), split
        if split not in SPLITS:
            raise ValueError(f"split: got {split!r}, expected {' or '.join(map(repr, SPLITS))}")
        self.meta = read_meta(self.folder)
        """The content of meta.json."""
        recipe, content = self.meta["recipe"], self.meta["splits"][split]
        self.dtype = str(recipe["dtype"])
        self._shards = content["shards"]
        if not self._shards:
            raise ValueError(
                f"split: {self.folder} has no documents in {split!r}: it is small, or validation is 0"
            )
        for shard in self._shards:
            check_shard(self.folder, shard, self.dtype, content=verify)
        self.tokens, self.bytes = int(content["tokens"]), int(content["bytes"])
        self.vocab_size = int(recipe["tokenizer"]["vocab_size"])
        self.end_of_document = int(recipe["tokenizer"]["end_of_document"])
        self._first_token = np.cumsum([0, *(shard["tokens"] for shard in self._shards)])
        self._first_document = np.cumsum([0, *(shard["documents"] for shard in self._shards)])

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.folder, self.split)

    def __len__(self) -> int:
        """Documents of the split."""
        return int(self._first_document[-1])

    @cached_property
    def _ids(self) -> list[np.ndarray[Any, Any]]:
        return [self._map(shard, "bin", ids_dtype(self.dtype)) for shard in self._shards]

    @cached_property
    def _index(self) -> list[np.ndarray[Any, Any]]:
        return [self._map(shard, "idx", INDEX_DTYPE).reshape(-1, 2) for shard in self._shards]

    def _map(self, shard: dict[str, Any], end: str, dtype: str) -> np.ndarray[Any, Any]:
        return np.memmap(self.folder / f"{shard['name']}.{end}", dtype=dtype, mode="r")

    def _place(self, number: int) -> tuple[int, int]:
        """The shard of a document and its number there."""
        if not 0 <= number < len(self):
            raise IndexError(f"document: got {number}, expected 0 to {len(self) - 1}")
        shard = int(np.searchsorted(self._first_document, number, side="right")) - 1
        return shard, number - int(self._first_document[shard])

    def document(self, number: int) -> np.ndarray[Any, Any]:
        """The ids of a document, `end_of_document` last: [tokens], not to be changed. IndexError for none."""
        shard, row = self._place(number)
        index = self._index[shard]
        return self._ids[shard][0 if row == 0 else index[row - 1, 0] : index[row, 0]]

    def document_bytes(self, number: int) -> int:
        """The size of a document's text in UTF-8."""
        shard, row = self._place(number)
        return int(self._index[shard][row, 1])

    def text(self, number: int) -> str:
        """The text of a document, as the tokenizer decodes it."""
        return self.tokenizer.decode(self.document(number)[:-1])

    def read(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Ids `start` to `stop` of all documents one after the other: [stop - start]. IndexError beyond the end."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens: got {start} to {stop}, expected 0 to {self.tokens}")
        first = int(np.searchsorted(self._first_token, start, side="right")) - 1
        parts = []
        for shard in range(first, len(self._shards)):
            begin = int(self._first_token[shard])
            if begin >= stop:
                break
            parts.append(self._ids[shard][max(0, start - begin) : stop - begin])
        return np.concatenate(parts) if parts else np.empty(0, dtype=ids_dtype(self.dtype))

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 text to a token, the ends of documents counted as tokens."""
        return self.bytes / self.tokens

    def bits_per_byte(self, loss: float) -> float:
        r"""A mean loss per token in nats as bits per byte of text: loss / (ln 2 · bytes_per_token)."""
        return loss / (math.log(2) * self.bytes_per_token)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What encoded the pack. RunError when its file was changed."""
        described = self.meta["recipe"]["tokenizer"]
        if described["sha256"] == tokenizer_digest(plain := ByteTokenizer()):
            return plain
        path = self.folder / TOKENIZER
        if not path.is_file():
            raise RunError(f"{path} is missing: put back the tokenizer {described['name']}")
        if file_digest(path) != described["sha256"]:
            raise RunError(f"{path} is not the tokenizer {described['name']} with which the pack was written")
        return FileTokenizer(path, described["end_token"])

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """ValueError unless the pack was written with this tokenizer and this end of a document."""
        here, given = self.meta["recipe"]["tokenizer"], describe_tokenizer(tokenizer)
        if any(here[key] != given[key] for key in ("sha256", "vocab_size", "end_of_document")):
            raise ValueError(
                f"tokenizer: got {_words(given)}, expected that of {self.folder}: {_words(here)}"
            )

    def check_vocab_size(self, vocab_size: int) -> None:
        """ValueError unless a model of this vocabulary has every id of the pack; more are allowed (padding)."""
        if vocab_size < self.vocab_size:
            raise ValueError(
                f"vocab_size: got {vocab_size}, expected at least {self.vocab_size}: {self.folder} was written with "
                f"the tokenizer {self.meta['recipe']['tokenizer']['name']}"
            )


def _words(described: dict[str, Any]) -> str:
    return (
        f"{described['name']} ({described['vocab_size']} ids, end of document {described['end_of_document']}, "
        f"SHA-256 {described['sha256'][:12]}…)"
    )
