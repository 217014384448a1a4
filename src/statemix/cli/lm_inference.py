"""`statemix lm eval` and `statemix lm generate`: what a trained language model predicts, and what it writes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli.console import Column, Table, output, progress
from statemix.cli.streams import encodable
from statemix.text import visible

if TYPE_CHECKING:
    from statemix.lm import Evaluation, Rates
    from statemix.lm.loading import Loaded
    from statemix.packs import Pack

MODEL: Any = typer.Argument(metavar="RUN", help="The folder of a run, or of a Hugging Face model.")
TOKENIZER: Any = typer.Option(help="bytes, or a tokenizer.json; the model's own if left out.")
DEVICE: Any = typer.Option(help="cpu, cuda, or auto: a GPU when there is one.")
PRECISION: Any = typer.Option(help="bfloat16, float32, or auto: bfloat16 on a GPU that has it.")


def evaluate(
    run: Annotated[Path, MODEL],
    pack: Annotated[Path | None, typer.Option(help="The run's pack if left out.")] = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    cut: Annotated[
        str, typer.Option(help="sequences of --length tokens, or documents, each from an empty state.")
    ] = "sequences",
    length: Annotated[
        int | None, typer.Option(help="Tokens of a sequence; as in training if left out.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences of a forward.")] = 8,
    max_tokens: Annotated[
        int | None, typer.Option(help="Evaluate the first so many; all if left out.")
    ] = None,
    carry_state: Annotated[
        bool, typer.Option("--carry-state", help="Let the state go on beyond --length.")
    ] = False,
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated tasks of lm-eval, instead of a pack.")
    ] = None,
    include: Annotated[Path | None, typer.Option(help="A folder of more tasks for lm-eval.")] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many documents of each task.")] = None,
    tokenizer: Annotated[str | None, TOKENIZER] = None,
    device: Annotated[str, DEVICE] = "auto",
    precision: Annotated[str, PRECISION] = "auto",
    json: Annotated[
        Path | None, typer.Option(help="Where to write; RUN/evaluation.json if left out.")
    ] = None,
) -> None:
    """Evaluate a language model on held-out text: loss, perplexity by context, bits per byte.

    With --tasks on tasks of lm-eval. Writes the numbers as JSON, too.
    """
    from statemix.lm import evaluate as evaluate_pack
    from statemix.lm.loading import load_model, open_pack
    from statemix.training.files import write_json

    loaded = load_model(run, tokenizer, _device(device))
    if tasks is not None:
        content = _run_tasks(loaded, tasks, include, limit, length or loaded.length, batch_size)
    else:
        text = open_pack(loaded, pack, split)
        progress().say(f"evaluating {run} on {split} of {text.folder}", style="dim")
        result = evaluate_pack(
            loaded.model, text, cut=cut, length=loaded.length if length is None else length, batch_size=batch_size,
            max_tokens=max_tokens, carry_state=carry_state, precision=precision,
        )  # fmt: skip
        for table in _tables(result, f"{split} of {text.folder}"):
            output().print(table)
        content = {**result.to_dict(), "pack": str(text.folder), "split": split, "tokenizer": _digest(text)}
    place = run / "evaluation.json" if json is None else json
    write_json(place, {"model": str(run), **content})
    output().say(f"evaluation: {place}")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: got {name!r}, which cannot be used here: {reason}") from None
    return name


def _digest(pack: Pack) -> str:
    return str(pack.meta["recipe"]["tokenizer"]["sha256"])


def _tables(result: Evaluation, title: str) -> list[Table]:
    """The whole, and the loss by context."""
    names = ("loss", "± s.e.", "perplexity", "bits per byte", "tokens", "bytes", result.cut)
    whole = Table(title, [Column(name, number=True) for name in names])
    error = "-" if result.standard_error is None else f"{result.standard_error:.4f}"
    bits = "-" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
    size = "-" if result.bytes is None else f"{result.bytes:,.0f}"
    numbers = (f"{result.perplexity:.3f}", bits, f"{result.tokens:,}", size, f"{result.units:,}")
    whole.add_row(f"{result.loss:.4f}", error, *numbers)
    columns = ("context", "tokens", "loss", "perplexity", "bits per token")
    rows = Table("by context", [Column(name, number=True) for name in columns])
    for one in result.by_context:
        context = str(one.first) if one.first == one.last else f"{one.first:,}–{one.last:,}"
        bits = f"{one.loss / math.log(2):.3f}"
        rows.add_row(context, f"{one.tokens:,}", f"{one.loss:.4f}", f"{one.perplexity:.3f}", bits)
    return [whole, rows]


def _run_tasks(
    loaded: Loaded, tasks: str, include: Path | None, limit: int | None, length: int, batch_size: int
) -> dict[str, Any]:
    """lm-eval's own table, and the numbers in it."""
    from statemix.lm.harness import harness_model, numbers, run_tasks, table
    from statemix.lm.loading import as_hugging_face

    harness = harness_model(as_hugging_face(loaded), loaded.tokenizer, length=length, batch_size=batch_size)
    results = run_tasks(harness, [name.strip() for name in tasks.split(",")], include=include, limit=limit)
    output().print(table(results))
    return {"tasks": numbers(results), "length": length}


def generate(
    run: Annotated[Path, MODEL],
    prompt: Annotated[str | None, typer.Option(help="What the text begins with.")] = None,
    prompt_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A file that holds the prompt; - for standard input.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="The most new tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token every time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Only the likeliest so many tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Only the likeliest tokens that have this probability together.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="A string that ends the text; may be repeated.")
    ] = None,
    prefill: Annotated[int, typer.Option(help="Tokens of the prompt that are read at once.")] = 2048,
    tokenizer: Annotated[str | None, TOKENIZER] = None,
    device: Annotated[str, DEVICE] = "auto",
) -> None:
    """Complete a prompt with a language model; the text comes as it is made.

    The prompt and the text go to standard output, tokens per second to standard error.
    """
    from statemix.lm import Rates, Sampling, generate
    from statemix.lm.loading import load_model

    text = _prompt(prompt, prompt_file)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    loaded, rates = load_model(run, tokenizer, _device(device)), Rates()
    parts = generate(
        _fastest(loaded), loaded.tokenizer, text, max_tokens=max_tokens, sampling=sampling, stop=stop or (),
        prefill=prefill, rates=rates,
    )  # fmt: skip
    _write(text)
    for part in parts:
        _write(part)
    _write("\n")
    progress().say(_sentence(rates), style="dim")


def _fastest(loaded: Loaded) -> Any:
    """The model whose steps a GPU replays as a graph, where there is one."""
    from statemix.extras import installed
    from statemix.lm.loading import as_hugging_face

    on_gpu = next(loaded.model.parameters()).is_cuda
    return as_hugging_face(loaded) if on_gpu and installed("transformers") else loaded.model


def _prompt(prompt: str | None, file: str | None) -> str:
    """The one that was given. ValueError for none or both."""
    if (prompt is None) == (file is None):
        came = "neither" if prompt is None else "both"
        raise ValueError(f"prompt: got {came} of --prompt and --prompt-file, expected one")
    if prompt is not None:
        return prompt
    data = sys.stdin.buffer.read() if file == "-" else Path(str(file)).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt_file: {file} is not UTF-8 at byte {error.start}") from None


def _write(text: str) -> None:
    """On standard output, at once. Control characters of a terminal are shown as escapes."""
    sys.stdout.write(encodable(visible(text, keep="\n\t"), sys.stdout.encoding))
    sys.stdout.flush()


def _sentence(rates: Rates) -> str:
    def each(tokens: int, seconds: float) -> str:
        return f"{tokens:,} tokens, {tokens / seconds:,.0f} a second" if seconds > 0 else f"{tokens:,} tokens"

    read = each(rates.prompt_tokens, rates.prompt_seconds)
    written = each(max(0, rates.new_tokens - 1), rates.seconds)  # the first comes with the prompt
    return f"prompt: {read}; behind the first: {written}"
