"""English text from packages, as JSON lines: unique paragraphs, in documents that name their source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from statemix.training.files import BusyError, read_json, replace_file, write_json, writing
from statemix_research.language import readers
from statemix_research.language.packages import KINDS, Contents, SourceError, fetched
from statemix_research.language.readers import READERS
from statemix_research.language.sources import SOURCES, TextSource

FORMAT = 1
"""Of corpus.json."""

INDEX, PAGE, TEXT, PACKAGES = "corpus.json", "corpus.md", "text", "packages"
"""What lies in a corpus: what there is, the same for people, the text, the packages."""

WORDS, CHARACTERS, LETTERS = 5, 20, 0.75
"""A paragraph is text if it has so many words and characters, and if this share of them are letters and blanks."""

SHORT, JOINED, LONG = 200, 4_096, 32_768
"""Characters: a page with less text is left out; short units are joined to so many; a document ends at so many."""

SEPARATOR = "\n\n"
"""Between the paragraphs of a document."""


@dataclass
class Corpus:
    """What a folder holds.

    Attributes:
        entries: By source: package, version, licence, documents, paragraphs, bytes of text, the file's SHA-256.
        failures: By source: why it is missing.
    """

    folder: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def build_corpus(
    folder: str | Path, sources: Sequence[TextSource] = SOURCES, say: Callable[[str], object] = print
) -> Corpus:
    """Fetch packages and write their text to `folder`/text/NAME.jsonl, one file a source, {"text", "source"} a line.

    A paragraph appears once, in the first source that has it. The same versions of the packages give the same files.
    Interrupted, it goes on at the source where it stopped. A source that cannot be fetched is left out and named in
    the result; a later call tries it again, and writes those behind it anew.

    Args:
        folder: Made if needed. Its page corpus.md says what was taken.
        sources: In the order in which they are read.
        say: Told of each source.

    Raises:
        ValueError: Two sources have one name, or the folder holds text of another.
        RunError: A file cannot be written.
        BusyError: Another process writes here.
    """
    path, names = Path(folder), [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"sources: got the names {', '.join(names)}, expected each once")
    with writing(path):
        (path / TEXT).mkdir(parents=True, exist_ok=True)
    if others := sorted(
        {one.name for one in (path / TEXT).glob("*.jsonl")} - {f"{name}.jsonl" for name in names}
    ):
        raise ValueError(f"folder: {path / TEXT} holds {others[0]}, expected text of {', '.join(names)}")
    try:
        with FileLock(path / ".lock", timeout=0):
            corpus = _build(path, sources, say)
    except Timeout:
        raise BusyError(f"{path} is being written by another process") from None
    return corpus


def _build(folder: Path, sources: Sequence[TextSource], say: Callable[[str], object]) -> Corpus:
    before = read_json(folder / INDEX)["sources"] if (folder / INDEX).is_file() else {}
    corpus, seen, chain, code = Corpus(folder), set[bytes](), "", code_digest()
    for source in sources:
        recipe = {"code": code, "after": chain, **json.loads(json.dumps(asdict(source)))}
        entry, path = before.get(source.name), folder / TEXT / f"{source.name}.jsonl"
        if entry is None or entry["recipe"] != recipe or not _intact(path, entry):
            say(f"reading {source.name}")
            try:
                entry = {"recipe": recipe, **_write(source, path, folder / PACKAGES, seen)}
            except SourceError as error:
                corpus.failures[source.name] = str(error)
                path.unlink(missing_ok=True)  # what stands there was read behind other sources
                continue
        else:
            seen.update(map(_key, _paragraphs(path)))
        corpus.entries[source.name] = entry
        chain = entry["sha256"]
        write_json(folder / INDEX, {"format": FORMAT, "sources": before | corpus.entries})
    write_json(folder / INDEX, {"format": FORMAT, "sources": corpus.entries})
    replace_file(folder / PAGE, lambda temporary: temporary.write_text(describe(corpus), encoding="utf-8"))
    return corpus


def code_digest() -> str:
    """Of the code that makes text of packages: with other code, sources are read anew."""
    return hashlib.sha256(
        b"".join(Path(path).read_bytes() for path in (__file__, readers.__file__))
    ).hexdigest()


def _write(source: TextSource, path: Path, packages: Path, seen: set[bytes]) -> dict[str, Any]:
    """Fetch a source and write its documents. What has been written is added to `seen`."""
    folder, new = fetched(source.kind, source.package, packages), set[bytes]()
    with KINDS[source.kind].open(folder) as contents:
        counts: dict[str, int] = {}

        def write(temporary: Path) -> None:
            counts.update(_write_lines(temporary, source, _unique(_units(source, contents), seen, new)))
            if not counts["documents"]:
                raise SourceError(f"{source.package} has no text in {', '.join(source.files)}")

        replace_file(path, write)
    seen |= new
    package, _, pinned = source.package.partition("==")
    version = {"package": package, "package_version": contents.version or pinned, "licence": source.licence}
    return {**version, **counts, "sha256": file_digest(path), "size": path.stat().st_size}


def _write_lines(path: Path, source: TextSource, units: Iterable[list[str]]) -> dict[str, int]:
    """Write the documents of a source, a line each. Returns how much it was."""
    counts = {"documents": 0, "paragraphs": 0, "bytes": 0}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for paragraphs in _documents(source, units):
            text = SEPARATOR.join(paragraphs).encode(errors="replace").decode()
            file.write(json.dumps({"text": text, "source": source.name}, ensure_ascii=False) + "\n")
            counts["documents"] += 1
            counts["paragraphs"] += len(paragraphs)
            counts["bytes"] += len(text.encode())
    return counts


def _units(source: TextSource, contents: Contents) -> Iterator[list[str]]:
    for name in contents.names:
        if any(fnmatch(name, one) for one in source.files) and not any(
            fnmatch(name, one) for one in source.skip
        ):
            try:
                yield from READERS[source.reader](contents.read(name), name, contents.read)
            except (ValueError, OSError, KeyError, EOFError) as error:
                raise SourceError(f"{name} of {source.package} cannot be read: {error}") from error


def _unique(units: Iterable[list[str]], seen: set[bytes], new: set[bytes]) -> Iterator[list[str]]:
    """The paragraphs of each unit that are text and came neither before nor in another source."""
    for unit in units:
        kept = []
        for paragraph in filter(is_text, unit):
            key = _key(paragraph)
            if key not in seen and key not in new:
                new.add(key)
                kept.append(paragraph)
        yield kept


def is_text(paragraph: str) -> bool:
    """Whether a paragraph is mostly words: no code, no table of numbers, no heading."""
    if len(paragraph) < CHARACTERS or len(paragraph.split()) < WORDS:
        return False
    return sum(one.isalpha() or one == " " for one in paragraph) >= LETTERS * len(paragraph)


def _documents(source: TextSource, units: Iterable[list[str]]) -> Iterator[list[str]]:
    """Paragraphs of one document: a page, or short units one after the other; a long page is several."""
    least = JOINED if source.grouped else SHORT
    document, size = list[str](), 0
    for unit in units:
        for paragraph in unit:
            document.append(paragraph)
            size += len(paragraph)
            if size >= LONG:
                yield document
                document, size = [], 0
        if size >= least:
            yield document
        elif source.grouped:
            continue
        document, size = [], 0
    if size >= SHORT:
        yield document


def _key(paragraph: str) -> bytes:
    return hashlib.blake2b(" ".join(paragraph.split()).encode(errors="replace"), digest_size=8).digest()


def _paragraphs(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield from json.loads(line)["text"].split(SEPARATOR)


def _intact(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a file has the content that was written."""
    if not path.is_file() or path.stat().st_size != entry["size"]:
        return False
    return file_digest(path) == entry["sha256"]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe(corpus: Corpus) -> str:
    """The page of a corpus: a table of sources with their licences and sizes, in Markdown."""
    rows = [
        f"| {name} | {one['package']} {one['package_version']} | {one['licence']} | {one['documents']:,} | "
        f"{one['bytes']:,} |"
        for name, one in corpus.entries.items()
    ]
    documents, size = (sum(one[key] for one in corpus.entries.values()) for key in ("documents", "bytes"))
    missing = [f"- {name}: {reason}" for name, reason in corpus.failures.items()]
    return "\n".join(
        [
            "# Text of packages", "",
            "Written by `statemix-research corpus`. The text is its authors', under the licences named here.", "",
            "| source | package | licence | documents | bytes of text |", "|---|---|---|---:|---:|", *rows,
            f"| all | | | {documents:,} | {size:,} |", "",
            *(["Missing:", "", *missing, ""] if missing else []),
        ]
    )  # fmt: skip
