"""Where text comes from: data sets that are streamed, files, and the standard library of Python.

Every source gives its documents in one order, in batches, each with a state from which it goes on after that batch.
"""

from __future__ import annotations

import glob
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from statemix.extras import require
from statemix.training.files import RunError

DATA_SETS: dict[str, tuple[str, str]] = {
    "fineweb": ("HuggingFaceFW/fineweb", "sample-10BT"),
    "fineweb-edu": ("HuggingFaceFW/fineweb-edu", "sample-10BT"),
}
"""Name -> the data set on Hugging Face's hub and its default subset, 10 billion GPT-2 tokens each."""

FORMATS = {
    ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".jsonl.gz": "json", ".jsonl.zst": "json",
    ".json.gz": "json", ".json.zst": "json", ".txt": "text", ".md": "text", ".rst": "text",
}  # fmt: skip
"""What files hold, by the end of their names. A text file is one document."""

ROWS = 256
"""Documents of a batch, at most."""

CHARACTERS = 1 << 20
"""A batch of files ends when it has so many."""

State = Mapping[str, Any]


class Source(Protocol):
    """Documents in one order."""

    @property
    def name(self) -> str:
        """Shown to people."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """JSON that differs when the documents do."""

    def batches(self, state: State | None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Lists of texts, none of them empty, from the beginning or behind `state`, each with the state behind it.

        States are JSON. RunError when the source cannot be read.
        """


@dataclass(frozen=True)
class Documents:
    """Documents that are read one by one: (name, a function that gives the text)."""

    name: str
    documents: Sequence[tuple[str, Callable[[], str]]]
    identity: Mapping[str, Any]

    def batches(self, state: State | None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Batches of at most `ROWS` documents; the state is the number of documents read."""
        first = 0 if state is None else int(state["document"])
        texts: list[str] = []
        for number in range(first, len(self.documents)):
            texts += _clean([self._text(number)], self.name)
            if len(texts) >= ROWS or sum(map(len, texts)) >= CHARACTERS:
                yield texts, {"document": number + 1}
                texts = []
        if texts:
            yield texts, {"document": len(self.documents)}

    def _text(self, number: int) -> str:
        name, read = self.documents[number]
        try:
            return read()
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from None


@dataclass(frozen=True)
class DataSet:
    """A stream of `datasets.load_dataset`: a data set of the hub, or local Parquet and JSON-lines files.

    arguments: those of `load_dataset`. column: the one that holds the text. Resumed through the stream's state_dict.
    """

    name: str
    arguments: Mapping[str, Any]
    column: str = "text"
    pinned: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The files with their sizes; for the hub the commit that is read, looked up once."""
        if not self.pinned:
            files = self.arguments.get("data_files")
            self.pinned.update(
                self._commit() if files is None else {"files": _sizes(files), "column": self.column}
            )
        return self.pinned

    def _commit(self) -> dict[str, Any]:
        path, subset = self.arguments["path"], self.arguments.get("name")
        revision = self.arguments.get("revision")
        if not Path(path).exists():
            require("datasets")
            from huggingface_hub import HfApi

            with self._readable():
                revision = HfApi().dataset_info(path, revision=revision).sha
        return {"data_set": path, "subset": subset, "revision": revision, "column": self.column}

    def batches(self, state: State | None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Batches of `ROWS` rows; the state is the stream's."""
        stream = self._stream()
        if state is not None:
            stream.load_state_dict(state)
        rows = stream.iter(batch_size=ROWS)
        while True:
            with self._readable():
                batch = next(rows, None)
            if batch is None:
                return
            texts = _clean(batch[self.column], self.column)
            if texts:
                yield texts, stream.state_dict()

    def _stream(self) -> Any:
        require("datasets")
        import datasets

        datasets.disable_progress_bars()
        arguments = dict(self.arguments)
        if "data_files" in arguments:
            arguments["data_files"] = [glob.escape(str(path)) for path in arguments["data_files"]]
        elif self.identity["revision"] is not None:
            arguments["revision"] = self.identity["revision"]
        with self._readable():
            stream = datasets.load_dataset(**arguments, split="train", streaming=True)
            columns = stream.column_names
        if columns is not None and self.column not in columns:
            raise ValueError(
                f"column: {self.name} has no {self.column!r}, expected one of {', '.join(columns)}"
            )
        # with features, rows are batched anew, and a stream that is resumed twice loses some of them
        stream.info.features = None
        return stream.select_columns([self.column])

    def _readable(self) -> _Readable:
        path = self.arguments["path"]
        return _Readable(self.name if "data_files" in self.arguments else f"{self.name} (data set {path})")


class _Readable(logging.Handler):
    """A context that turns whatever a stream raises into one RunError.

    What the packages below log meanwhile is not printed: their last error, which names the file, is the reason.
    """

    LOGGERS = ("datasets", "huggingface_hub", "httpx", "fsspec")

    def __init__(self, source: str) -> None:
        super().__init__(logging.ERROR)
        self._source, self._said = source, ""
        self._before: dict[logging.Logger, tuple[list[logging.Handler], bool]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Called for every error that is logged."""
        self._said = record.getMessage()

    def __enter__(self) -> None:
        for logger in map(logging.getLogger, self.LOGGERS):
            self._before[logger] = (logger.handlers, logger.propagate)
            logger.handlers, logger.propagate = [self], False

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for logger, (handlers, propagate) in self._before.items():
            logger.handlers, logger.propagate = handlers, propagate
        if isinstance(error, Exception):  # of many kinds
            reason = " ".join((self._said or str(error)).split()) or type(error).__name__
            raise RunError(f"cannot read {self._source}: {reason}") from error


@dataclass(frozen=True)
class Chain:
    """Sources one after the other."""

    name: str
    parts: Sequence[Source]

    @property
    def identity(self) -> Mapping[str, Any]:
        """Those of the parts."""
        return {"parts": [dict(part.identity) for part in self.parts]}

    def batches(self, state: State | None) -> Iterator[tuple[list[str], dict[str, Any]]]:
        """Those of the parts; the state says in which."""
        first, inner = (0, None) if state is None else (int(state["part"]), state["state"])
        for number in range(first, len(self.parts)):
            for texts, behind in self.parts[number].batches(inner if number == first else None):
                yield texts, {"part": number, "state": behind}


def build_source(
    names: Sequence[str | Path],
    *,
    column: str = "text",
    subset: str | None = None,
    revision: str | None = None,
) -> Source:
    """The source of some names: "stdlib", a name of `DATA_SETS`, files and folders, in this order.

    Of a folder, the files of a known format are taken, sorted by path (`FORMATS`); a file that is named itself and has
    no known format is text. column: that of the text in Parquet and JSON-lines files and data sets. subset,
    revision: of the data sets of the hub. Errors: FileNotFoundError for what is neither, ValueError for an empty
    folder or no name at all.

    >>> build_source(["stdlib"]).name
    'stdlib'
    """
    if not names:
        raise ValueError(f"source: got none, expected stdlib, {', '.join(DATA_SETS)}, files or folders")
    parts: list[Source] = []
    for named, group in itertools.groupby(map(str, names), key=lambda name: name in ("stdlib", *DATA_SETS)):
        if named:
            parts += [_named(name, column, subset, revision) for name in group]
        else:  # files of one kind are one stream
            files = [path for name in group for path in _files(Path(name))]
            kinds = itertools.groupby(files, key=lambda path: _format(path) or "text")
            parts += [_file_source(kind, list(paths), column) for kind, paths in kinds]
    return parts[0] if len(parts) == 1 else Chain(", ".join(part.name for part in parts), parts)


def _named(name: str, column: str, subset: str | None, revision: str | None) -> Source:
    if name == "stdlib":
        from statemix.packs.stdlib import standard_library

        return standard_library()
    path, default = DATA_SETS[name]
    return DataSet(name, {"path": path, "name": subset or default, "revision": revision}, column)


def _file_source(kind: str, paths: Sequence[Path], column: str) -> Source:
    name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if kind == "text":
        read = [(str(path), lambda path=path: path.read_text(encoding="utf-8")) for path in paths]
        return Documents(name, read, {"files": _sizes(paths)})
    strict = {"on_mixed_types": None} if kind == "json" else {}  # a line may lack keys of others
    return DataSet(name, {"path": kind, "data_files": paths, **strict}, column)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            known = ", ".join(["stdlib", *DATA_SETS])
            raise FileNotFoundError(f"source: {path} does not exist, expected {known}, a file or a folder")
        return [path]
    found = sorted(one for one in path.rglob("*") if one.is_file() and _format(one))
    if not found:
        raise ValueError(f"source: {path} has no files that end in {', '.join(FORMATS)}")
    return found


def _format(path: Path) -> str | None:
    return next((kind for end, kind in FORMATS.items() if path.name.lower().endswith(end)), None)


def _sizes(paths: Sequence[Path]) -> list[dict[str, Any]]:
    return [{"name": path.name, "bytes": path.stat().st_size} for path in paths]


def _clean(texts: Sequence[Any], name: str) -> list[str]:
    """Texts that can be encoded: missing and empty ones left out, halves of characters replaced."""
    wrong = next((one for one in texts if not (one is None or isinstance(one, str))), None)
    if wrong is not None:
        raise ValueError(f"{name}: got {type(wrong).__name__}, expected text")
    return [text.encode(errors="replace").decode() for text in texts if text]
