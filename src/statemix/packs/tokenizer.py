"""From text to token ids and back: bytes, or a tokenizer.json of the `tokenizers` package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from statemix.extras import require
from statemix.training.files import read_bytes, replace_file

if TYPE_CHECKING:
    from statemix.packs.sources import Source

END_OF_DOCUMENT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Tokens that end a document, the first that a tokenizer has."""

BYTES = 256

DTYPES = {"uint16": 1 << 16, "uint32": 1 << 32}
"""Numbers of ids that each dtype of a pack holds."""


Ids = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Documents one after the other: ids [tokens], and the tokens of each document with its end, [documents]."""


class Tokenizer(Protocol):
    """What packs need of a tokenizer.

    name: shown to people. content: its tokenizer.json. vocab_size: ids are 0 … vocab_size - 1. end_of_document: the id
    that ends every document and stands nowhere else; end_token: its text.
    """

    name: str
    content: bytes
    vocab_size: int
    end_of_document: int
    end_token: str

    def encode(self, texts: Sequence[str]) -> Ids:
        """(ids, lengths): the ids of each text and `end_of_document` after it."""

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """The text of some ids; `end_of_document` is shown as its token."""


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """The SHA-256 of a tokenizer's tokenizer.json, 64 hex digits."""
    return hashlib.sha256(tokenizer.content).hexdigest()


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a pack's meta.json says of its tokenizer."""
    return {
        "name": tokenizer.name,
        "sha256": tokenizer_digest(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "end_of_document": tokenizer.end_of_document,
        "end_token": tokenizer.end_token,
    }


class ByteTokenizer:
    """The bytes of UTF-8 as ids 0 … 255, and 256 at the end of a document. Needs NumPy alone.

    Its `content` is a tokenizer.json that gives the same ids in other programs.

    >>> ByteTokenizer().encode(["né"])[0].tolist()
    [110, 195, 169, 256]
    """

    name = "bytes"
    vocab_size = BYTES + 1
    end_of_document = BYTES
    end_token = END_OF_DOCUMENT[0]

    def __init__(self) -> None:
        self.content = json.dumps(_byte_level()).encode()

    def encode(self, texts: Sequence[str]) -> Ids:
        """The bytes of each text and 256 after it."""
        encoded = [text.encode() for text in texts]
        lengths = np.array([len(one) for one in encoded], dtype=np.int64)
        joined = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.uint16)
        return np.insert(joined, lengths.cumsum(), self.end_of_document), lengths + 1

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD."""
        pieces = np.array(
            [bytes([value]) for value in range(BYTES)] + [self.end_token.encode()], dtype=object
        )
        return b"".join(pieces[np.asarray(ids, dtype=np.int64)]).decode(errors="replace")


class FileTokenizer:
    """A tokenizer.json, as `tokenizers` and Hugging Face's models write it.

    path: the file. end_token: what ends a document; the first of `END_OF_DOCUMENT` that the file has if left out. Text
    that looks like a special token is encoded as text. Truncation, padding and post-processing are off. All cores are
    used; the environment variable RAYON_NUM_THREADS limits them. Errors: ValueError for a file of another kind or
    without such a token, ImportError without `tokenizers`.
    """

    def __init__(self, path: str | Path, end_token: str | None = None) -> None:
        require("tokenizers")
        from tokenizers import Tokenizer as Implementation

        self.name = Path(path).name
        self.content = read_bytes(Path(path))
        try:
            self._tokenizer = Implementation.from_str(self.content.decode())
        except Exception as error:  # the package raises nothing narrower
            raise ValueError(f"{path} is not a tokenizer.json: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1  # ids may have gaps
        tokens = END_OF_DOCUMENT if end_token is None else (end_token,)
        found = [token for token in tokens if token in vocabulary]
        if not found:
            raise ValueError(
                f"end_token: {path} has none of {', '.join(tokens)}, expected a token that ends a document"
            )
        self.end_token, self.end_of_document = found[0], vocabulary[found[0]]

    def encode(self, texts: Sequence[str]) -> Ids:
        """The ids of each text and `end_of_document` after it."""
        ids: list[int] = []
        lengths: list[int] = []
        for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
            ids += encoding.ids
            ids.append(self.end_of_document)
            lengths.append(len(encoding) + 1)
        return np.array(ids, dtype=np.uint32), np.array(lengths, dtype=np.int64)

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """The text of some ids, special tokens shown."""
        return str(self._tokenizer.decode([int(one) for one in ids], skip_special_tokens=False))


def load_tokenizer(name: str | Path = "bytes", end_token: str | None = None) -> Tokenizer:
    """The byte tokenizer for "bytes", else the tokenizer.json at that path.

    end_token: of a file, what ends a document. Errors: those of `FileTokenizer`; FileNotFoundError.

    >>> load_tokenizer("bytes").vocab_size
    257
    """
    return ByteTokenizer() if name == "bytes" else FileTokenizer(name, end_token)


def choose_dtype(tokenizer: Tokenizer, dtype: str = "auto") -> str:
    """The dtype of a pack: "auto" takes the smallest that holds every id. ValueError for one that does not."""
    fitting = [name for name, ids in DTYPES.items() if tokenizer.vocab_size <= ids]
    if dtype not in ("auto", *fitting):
        held = f" ({DTYPES[dtype]} ids)" if dtype in DTYPES else ""
        raise ValueError(
            f"dtype: got {dtype!r}{held}, expected {' or '.join(map(repr, ('auto', *fitting)))}: the tokenizer "
            f"{tokenizer.name} has {tokenizer.vocab_size} ids"
        )
    return fitting[0] if dtype == "auto" else dtype


def train_tokenizer(
    source: Source, path: str | Path, size: int = 32_768, max_bytes: int | None = None
) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al., 2016) on the texts of `source` and write it to `path`, a tokenizer.json.

    size: the number of ids, of which 0 is <|endoftext|> and 256 are bytes, so that no text is unknown; fewer where the
    text has no more pairs to merge. max_bytes: stop reading there. The same texts give the same file. Errors:
    ValueError for a size below 257, ImportError without `tokenizers`, RunError when the file cannot be written.
    """
    require("tokenizers")
    from tokenizers import Tokenizer as Implementation
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if size <= BYTES:
        raise ValueError(
            f"size: got {size}, expected at least {BYTES + 1}: every byte and {END_OF_DOCUMENT[0]}"
        )
    model = Implementation(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END_OF_DOCUMENT[0]], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    model.train_from_iterator(_first_bytes(source, max_bytes), trainer)
    replace_file(
        Path(path), lambda temporary: temporary.write_text(model.to_str(pretty=True), encoding="utf-8")
    )
    return FileTokenizer(path)


def _first_bytes(source: Source, most: int | None) -> Iterator[list[str]]:
    total = 0
    for texts, _ in source.batches(None):
        yield texts
        total += sum(len(text.encode()) for text in texts)
        if most is not None and total >= most:
            return


def _byte_level() -> dict[str, Any]:
    """The byte tokenizer as a tokenizer.json: every byte a character, by the table of GPT-2, and no merges."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    other = [value for value in range(BYTES) if value not in plain]
    characters = {value: chr(value) for value in plain} | {v: chr(BYTES + k) for k, v in enumerate(other)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": BYTES, "content": END_OF_DOCUMENT[0], "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True},
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {characters[value]: value for value in range(BYTES)}, "merges": [],
        },
    }  # fmt: skip
