"""From a source of text to a pack: read, encode, divide into splits, write."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from statemix.packs.layout import FORMAT, LOCK, read_meta
from statemix.packs.progress import Progress
from statemix.packs.sources import Source
from statemix.packs.tokenizer import ByteTokenizer, Tokenizer, choose_dtype, describe_tokenizer
from statemix.packs.writer import Encoded, Writer
from statemix.training.files import BusyError, writing

SHARD_TOKENS = 1 << 26
"""Tokens after which a shard is written: 128 MiB of uint16."""

AHEAD = 3
"""Batches that are read before the first of them is encoded."""


def prepare_pack(
    source: Source,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    validation: float = 0.01,
    shard_tokens: int = SHARD_TOKENS,
    max_tokens: int | None = None,
    dtype: str = "auto",
    resume: bool = True,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Write the documents of `source` as a pack into `folder`; returns the content of its meta.json.

    tokenizer: the byte tokenizer if left out. validation: the probability that a document is held out, by a hash of its
    text, so that equal documents are in one split and no order matters. shard_tokens: a shard is written once it has so
    many. max_tokens: end behind the document with which the pack has so many. dtype: "uint16", "uint32" or the smaller
    that fits ("auto"). resume: go on with an unfinished pack, to the same files as without an interruption; otherwise
    discard it. progress: True shows it, None on a terminal.

    Errors: ValueError for arguments, a folder that holds something else, a source without text; RunError when the
    source cannot be read or a file not written, with the shards before it untouched; BusyError when another process
    writes here.

    >>> import tempfile
    >>> from statemix.packs import build_source
    >>> meta = prepare_pack(build_source(["stdlib"]), tempfile.mkdtemp(), max_tokens=10_000)
    >>> meta["splits"]["train"]["tokens"] + meta["splits"]["validation"]["tokens"] >= 10_000
    True
    """
    tokenizer = tokenizer or ByteTokenizer()
    if not 0 <= validation <= 0.5:
        raise ValueError(f"validation: got {validation!r}, expected a number from 0 to 0.5")
    for name, value in (("shard_tokens", shard_tokens), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: got {value!r}, expected an integer of at least 1")
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise ValueError(f"folder: {path} is a file, expected a folder for the pack")
    recipe = {
        "format": FORMAT, "source": dict(source.identity), "tokenizer": describe_tokenizer(tokenizer),
        "dtype": choose_dtype(tokenizer, dtype), "validation": validation, "shard_tokens": shard_tokens,
        "max_tokens": max_tokens,
    }  # fmt: skip
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path / LOCK, timeout=0):
            writer = Writer(path, recipe, tokenizer.content, resume=resume)
            if writer.finished:
                return read_meta(path)
            with Progress(progress, max_tokens) as shown:
                _fill(writer, source, tokenizer, shown)
            return writer.finish()
    except Timeout:
        raise BusyError(f"{path} is being written by another process") from None


def _fill(writer: Writer, source: Source, tokenizer: Tokenizer, shown: Progress) -> None:
    """Take the source from where the writer stands to its end, or to `max_tokens`."""
    recipe, state, done = writer.recipe, writer.state, writer.total("tokens")
    most = math.inf if recipe["max_tokens"] is None else recipe["max_tokens"]
    shown.begin(writer.total("documents"), done)
    if done >= most:
        return
    for batch, behind in _encoded(source, state, tokenizer, recipe):
        taken, state = _first_tokens(batch, most - done), behind
        writer.add(taken)
        done += len(taken.ids)
        shown.add(len(taken.lengths), len(taken.ids), int(taken.bytes.sum()))
        if done >= most:
            break
        if writer.open_tokens >= recipe["shard_tokens"]:
            writer.close_shard(state)
    if writer.open_tokens and state is not None:
        writer.close_shard(state)


def _encoded(
    source: Source, state: Mapping[str, Any] | None, tokenizer: Tokenizer, recipe: Mapping[str, Any]
) -> Iterator[tuple[Encoded, dict[str, Any]]]:
    """Batches in the order of the source, encoded in a thread while the next ones are read."""
    waiting: deque[tuple[Future[Encoded], dict[str, Any]]] = deque()
    encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
    try:
        for texts, behind in source.batches(state):
            waiting.append((encoder.submit(encode, texts, tokenizer, recipe), behind))
            if len(waiting) > AHEAD:
                first, its_state = waiting.popleft()
                yield first.result(), its_state
        for first, its_state in waiting:
            yield first.result(), its_state
    finally:  # also when nobody wants more
        encoder.shutdown(cancel_futures=True)


def encode(texts: Sequence[str], tokenizer: Tokenizer, recipe: Mapping[str, Any]) -> Encoded:
    """Ids, lengths, bytes and split of some documents."""
    data = [text.encode() for text in texts]
    ids, lengths = tokenizer.encode(texts)
    if np.count_nonzero(ids == tokenizer.end_of_document) != len(texts):
        raise ValueError(
            f"end_token: the tokenizer {tokenizer.name} gives {tokenizer.end_token!r} inside a document, expected a "
            "special token"
        )
    sizes = np.array([len(one) for one in data], dtype=np.int64)
    apart = np.array([held_out(one, recipe["validation"]) for one in data], dtype=bool)
    return Encoded(ids.astype(recipe["dtype"]), lengths, sizes, apart)


def held_out(text: bytes, validation: float) -> bool:
    """Whether a document belongs to the validation split: the hash of its text, as a fraction of one, is below."""
    digest = hashlib.blake2b(text, digest_size=8, person=b"statemix").digest()
    return int.from_bytes(digest, "big") < validation * 2.0**64


def _first_tokens(batch: Encoded, most: float) -> Encoded:
    """The documents of a batch up to the one with which there are `most` tokens."""
    documents = int(np.searchsorted(batch.lengths.cumsum(), most)) + 1
    tokens = int(batch.lengths[:documents].sum())
    return Encoded(batch.ids[:tokens], *(part[:documents] for part in batch[1:]))
