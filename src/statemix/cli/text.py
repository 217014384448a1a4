"""`statemix text`: text is prepared as packs, tokenizers are trained, packs are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli.console import Column, Table, output, progress
from statemix.cli.errors import Interrupted
from statemix.cli.streams import encodable

if TYPE_CHECKING:
    from statemix.packs import Source

MORE: Any = typer.Argument(metavar="FILES", help="More files and folders, read behind --source.")
SOURCE: Any = typer.Option(
    "--source",
    metavar="SOURCE",
    help="stdlib, fineweb, fineweb-edu, a file or a folder (Parquet, JSON lines, text); may be repeated.",
)
COLUMN: Any = typer.Option(help="The column that holds the text, in Parquet and JSON lines.")
SUBSET: Any = typer.Option(help="Of fineweb and fineweb-edu; sample-10BT if left out.")
REVISION: Any = typer.Option(help="A commit of the data set on the hub; the newest if left out.")
EXCERPT = 300
"""Characters of a document that are shown."""


def list_sources() -> None:
    """List the sources of text."""
    from statemix.packs import DATA_SETS, FORMATS

    table = Table("", [Column("source"), Column("holds", prose=True)])
    table.add_row("stdlib", "sources and documentation of the Python that runs this; no download")
    for name, (path, subset) in DATA_SETS.items():
        table.add_row(name, f"{path} on Hugging Face's hub, by default the subset {subset}; streamed")
    table.add_row("FILES", f"files and folders: {', '.join(FORMATS)}")
    output().print(table)


def prepare(
    files: Annotated[list[str] | None, MORE] = None,
    source: Annotated[list[str] | None, SOURCE] = None,
    out: Annotated[Path, typer.Option(help="The folder of the pack.")] = Path("packs/pack"),
    tokenizer: Annotated[str, typer.Option(help="bytes, or the path of a tokenizer.json.")] = "bytes",
    end_token: Annotated[
        str | None, typer.Option(help="What ends a document; the tokenizer's own if left out.")
    ] = None,
    validation: Annotated[float, typer.Option(help="The share of documents held out, by a hash.")] = 0.01,
    max_tokens: Annotated[int | None, typer.Option(help="End once the pack has so many tokens.")] = None,
    shard_tokens: Annotated[int, typer.Option(help="Tokens of a shard: what an interruption costs.")] = 1
    << 26,
    dtype: Annotated[str, typer.Option(help="uint16, uint32, or the smaller that fits: auto.")] = "auto",
    column: Annotated[str, COLUMN] = "text",
    subset: Annotated[str | None, SUBSET] = None,
    revision: Annotated[str | None, REVISION] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with an unfinished pack in the folder, or discard it.")
    ] = True,
) -> None:
    """Prepare text as a pack: token ids in shards, with the ends of documents and digests.

    Interrupted at any point, the same command resumes and ends with the same files.
    """
    from statemix.packs import load_tokenizer, prepare_pack

    chosen, words = _source(source, files, column, subset, revision), load_tokenizer(tokenizer, end_token)
    progress().say(f"preparing {chosen.name} in {out}", style="dim")
    try:
        meta = prepare_pack(
            chosen, out, words, validation=validation, shard_tokens=shard_tokens, max_tokens=max_tokens,
            dtype=dtype, resume=resume, progress=True,
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted(f"finished shards of {out} are saved; the same command resumes") from None
    output().print(_summary(meta))
    output().say(f"pack: {out}")


def _source(
    source: list[str] | None, files: list[str] | None, column: str, subset: str | None, revision: str | None
) -> Source:
    from statemix.packs import build_source

    return build_source([*(source or []), *(files or [])], column=column, subset=subset, revision=revision)


def _summary(meta: dict[str, Any]) -> Table:
    """Splits with their documents, tokens and bytes."""
    names = ("documents", "tokens", "bytes", "bytes per token", "shards")
    table = Table("", [Column("split"), *(Column(name, number=True) for name in names)])
    for split, content in meta["splits"].items():
        ratio = f"{content['bytes'] / content['tokens']:.3f}" if content["tokens"] else "-"
        counts = [f"{content[name]:,}" for name in ("documents", "tokens", "bytes")]
        table.add_row(split, *counts, ratio, str(len(content["shards"])))
    return table


def tokenizer(
    files: Annotated[list[str] | None, MORE] = None,
    source: Annotated[list[str] | None, SOURCE] = None,
    size: Annotated[int, typer.Option(help="The number of ids, at least 257.")] = 32_768,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("tokenizer.json"),
    max_bytes: Annotated[int | None, typer.Option(help="Read so much text; all if left out.")] = None,
    column: Annotated[str, COLUMN] = "text",
    subset: Annotated[str | None, SUBSET] = None,
    revision: Annotated[str | None, REVISION] = None,
) -> None:
    """Train a byte-level BPE tokenizer on text and write it as a tokenizer.json.

    The same text gives the same file. <|endoftext|> is id 0.
    """
    from statemix.packs import train_tokenizer

    chosen = _source(source, files, column, subset, revision)
    progress().say(f"training a tokenizer on {chosen.name}", style="dim")
    trained = train_tokenizer(chosen, out, size, max_bytes)
    output().say(f"tokenizer: {out}, {trained.vocab_size} ids")


def show(
    folder: Annotated[Path, typer.Argument(metavar="PACK", help="The folder of a pack.")],
    document: Annotated[int, typer.Option(help="The number of the training document that is shown.")] = 0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all shards and compare their SHA-256.")
    ] = False,
) -> None:
    """Show a pack: its source, tokenizer and splits, and the beginning of a document."""
    from statemix.packs import Pack

    pack = Pack(folder, "train", verify=verify)
    if verify and pack.meta["splits"]["validation"]["shards"]:
        Pack(folder, "validation", verify=True)
    console, recipe = output(), pack.meta["recipe"]
    console.print(_summary(pack.meta))
    for key in ("source", "tokenizer"):
        console.say(
            f"{key}: {', '.join(f'{name} {value}' for name, value in recipe[key].items())}", style="dim"
        )
    if verify:
        console.say("every shard has the content that was written")
    console.say(f"document {document}, {len(pack.document(document)):,} tokens:", style="bold")
    console.print(encodable(pack.text(document)[:EXCERPT], console.encoding))
