"""A trained language model with its tokenizer: from the folder of a run, or of a Hugging Face model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from statemix.extras import require
from statemix.lm.config import LMConfig
from statemix.lm.runs import load_language_model
from statemix.lm.stateful import stateful
from statemix.packs import ByteTokenizer, FileTokenizer, Pack, Tokenizer, load_tokenizer, tokenizer_digest
from statemix.training.files import MissingFileError, replace_file

if TYPE_CHECKING:
    from statemix.hf import StatemixForCausalLM

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
"""A tokenizer's files, as transformers names them."""

LENGTH = 2048
"""Tokens of a sequence where no run says it."""


class Loaded(NamedTuple):
    """A model in evaluation mode and its tokenizer. config: of a run; None for a Hugging Face model."""

    folder: Path
    model: nn.Module
    tokenizer: Tokenizer
    config: LMConfig | None

    @property
    def length(self) -> int:
        """T, tokens of a training sequence."""
        return LENGTH if self.config is None else self.config.data.length


def load_model(
    folder: str | Path, tokenizer: str | Path | None = None, device: torch.device | str = "cpu"
) -> Loaded:
    """The model of a run (`statemix lm train`), or of a folder that `StatemixForCausalLM.save_pretrained` wrote.

    Args:
        folder: Either.
        tokenizer: "bytes" or a tokenizer.json, in place of the folder's own (`save_tokenizer`).
        device: Where the model is put.

    Raises:
        RunError: The folder is neither, has no weights yet, or a file is damaged; also a ValueError where it does not
            exist.
        ValueError: There is no tokenizer, or it has more ids than the model.
        ImportError: transformers is missing for a Hugging Face model.
    """
    path = Path(folder)
    if not path.is_dir():
        raise MissingFileError(
            f"{path} does not exist: expected the folder of a run or of a Hugging Face model"
        )
    config: LMConfig | None = None
    if _is_hugging_face(path):
        model: nn.Module = _hugging_face_model(path)
    else:
        config, model = load_language_model(path)
    words = _own_tokenizer(path, config) if tokenizer is None else load_tokenizer(tokenizer)
    ids = stateful(model).vocab_size
    if words.vocab_size > ids:
        raise ValueError(
            f"tokenizer: got {words.name} of {words.vocab_size} ids, expected at most {ids}: the model of {path}"
        )
    return Loaded(path, model.to(device).eval(), words, config)


def _own_tokenizer(path: Path, config: LMConfig | None) -> Tokenizer:
    """What lies in the folder; else, of a run, that of its pack."""
    if config is not None and not (path / TOKENIZER).exists() and Path(config.data.pack).is_dir():
        return Pack(config.data.pack).tokenizer
    return folder_tokenizer(path)


def _is_hugging_face(path: Path) -> bool:
    try:
        return "model_type" in json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False  # what loads a run says what is wrong


def _hugging_face_model(path: Path) -> nn.Module:
    require("transformers", "safetensors")
    from statemix.hf import StatemixForCausalLM

    return StatemixForCausalLM.from_pretrained(path)  # type: ignore[no-any-return]


def save_tokenizer(folder: str | Path, tokenizer: Tokenizer) -> None:
    """Put a tokenizer beside a model: tokenizer.json, and its end of a document in tokenizer_config.json.

    `transformers.PreTrainedTokenizerFast.from_pretrained(folder)` reads them too. RunError when they cannot be written.

    >>> import tempfile
    >>> from statemix.packs import ByteTokenizer
    >>> folder = tempfile.mkdtemp()
    >>> save_tokenizer(folder, ByteTokenizer())
    >>> folder_tokenizer(folder).name
    'bytes'
    """
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": tokenizer.end_token}
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    path = Path(folder)
    replace_file(path / TOKENIZER, lambda temporary: temporary.write_bytes(tokenizer.content))
    replace_file(path / SETTINGS, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def folder_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer that lies beside a model. ValueError for none, or one without an end of a document."""
    path = Path(folder) / TOKENIZER
    if not path.is_file():
        raise ValueError(
            f"tokenizer: {folder} has no {TOKENIZER}, expected one there, or another that is named"
        )
    if path.read_bytes() == (plain := ByteTokenizer()).content:
        return plain
    try:
        settings = json.loads((path.parent / SETTINGS).read_text(encoding="utf-8"))
        end = settings.get("eos_token")
    except (OSError, ValueError):
        end = None
    return FileTokenizer(path, end["content"] if isinstance(end, dict) else end)


def open_pack(loaded: Loaded, folder: str | Path | None = None, split: str = "validation") -> Pack:
    """A split of a pack that the model's tokenizer wrote; by default the run's own pack.

    Errors: ValueError for a pack of another tokenizer, with both digests, and where no pack is known;
    FileNotFoundError for a folder that is none.
    """
    if folder is None:
        if loaded.config is None:
            raise ValueError(f"pack: missing, expected the folder of one ({loaded.folder} does not name any)")
        folder = loaded.config.data.pack
    pack = Pack(folder, split)
    here = pack.meta["recipe"]["tokenizer"]
    given = tokenizer_digest(loaded.tokenizer)
    if given != here["sha256"] and not _same_ids(loaded.tokenizer, pack.tokenizer):
        raise ValueError(
            f"pack: {pack.folder} was written with the tokenizer {here['name']} (SHA-256 {here['sha256'][:12]}…), "
            f"expected that of {loaded.folder}: {loaded.tokenizer.name} (SHA-256 {given[:12]}…)"
        )
    return pack


def _same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have one vocabulary, merges and end of a document, in files that other programs wrote."""
    return (one.end_of_document, _vocabulary(one)) == (other.end_of_document, _vocabulary(other))


def _vocabulary(tokenizer: Tokenizer) -> tuple[Any, Any]:
    model = json.loads(tokenizer.content)["model"]
    merges = [
        tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model.get("merges", [])
    ]
    return model.get("vocab"), merges


def as_hugging_face(loaded: Loaded) -> StatemixForCausalLM:
    """The model as a `StatemixForCausalLM`; a run's is copied into one. ImportError without transformers."""
    require("transformers", "safetensors")
    from statemix.hf import config_of, from_language_model

    if loaded.config is None:
        return loaded.model  # type: ignore[return-value]
    model: Any = loaded.model
    return from_language_model(model, config_of(model, loaded.config.mixer)).eval()
