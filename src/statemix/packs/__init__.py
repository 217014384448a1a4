"""Text for language models: prepared once into packs of token ids, read as batches (extra `text`).

from statemix.packs import Batches, Pack, build_source, prepare_pack

prepare_pack(build_source(["stdlib"]), "packs/stdlib")
batches = Batches(Pack("packs/stdlib"), batch_size=8, length=256, seed=0)
"""

from statemix.packs.batches import Batch, Batches
from statemix.packs.pack import Pack
from statemix.packs.prepare import prepare_pack
from statemix.packs.sources import DATA_SETS, FORMATS, Chain, DataSet, Documents, Source, build_source
from statemix.packs.tokenizer import (
    ByteTokenizer,
    FileTokenizer,
    Tokenizer,
    choose_dtype,
    load_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)

__all__ = [
    "DATA_SETS", "FORMATS", "Batch", "Batches", "ByteTokenizer", "Chain", "DataSet", "Documents", "FileTokenizer",
    "Pack", "Source", "Tokenizer", "build_source", "choose_dtype", "load_tokenizer", "prepare_pack",
    "tokenizer_digest", "train_tokenizer",
]  # fmt: skip
