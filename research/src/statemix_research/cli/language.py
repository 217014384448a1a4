"""`statemix-research corpus`, `carry` and `quality`: text for language models, and the runs that compare them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statemix.cli import Column, Failure, Table, output, progress
from statemix.training.files import replace_file

if TYPE_CHECKING:
    from statemix_research.language.plan import Outcome

FOLDER: Any = typer.Argument(metavar="FOLDER", help="Where the text goes; best outside a repository.")
ONLY: Any = typer.Option("--only", metavar="SOURCE", help="One of the sources; may be repeated.")
GIVEN: Any = typer.Option(help="JSON lines: the fields of a run, loss and epoch_seconds.")
COUNTS = ("documents", "bytes")


def corpus(
    folder: Annotated[Path, FOLDER],
    page: Annotated[Path | None, typer.Option(help="With --outcomes: write the page here, a folder.")] = None,
    only: Annotated[list[str] | None, ONLY] = None,
) -> None:
    """Fetch about 200 MB of English text from Debian and Python packages, as JSON lines; nothing is installed.

    Needs apt-get with a Debian mirror, dpkg-deb and pip. Interrupted, the same command goes on. Exit code 1 when a
    source is missing; the others are kept.
    """
    from statemix_research.language.corpus import PAGE, TEXT, build_corpus
    from statemix_research.language.sources import SOURCES

    known = [source.name for source in SOURCES]
    if unknown := sorted(set(only or []) - set(known)):
        raise ValueError(f"--only: got {unknown[0]!r}, expected one of {', '.join(known)}")
    chosen = [source for source in SOURCES if not only or source.name in only]
    found = build_corpus(folder, chosen, lambda line: progress().say(line, style="dim"))
    output().print(_sources(found.entries))
    output().say(f"text: {folder / TEXT}, described in {folder / PAGE}")
    if found.failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.failures.items())
        raise Failure(f"{len(found.failures)} sources are missing, the others are kept: {reasons}")


def _sources(entries: dict[str, dict[str, Any]]) -> Table:
    names = ("source", "package")
    table = Table(
        "",
        [*map(Column, names), Column("licence", prose=True), *(Column(name, number=True) for name in COUNTS)],
    )
    for name, one in entries.items():
        counts = [f"{one[key]:,}" for key in COUNTS]
        table.add_row(name, f"{one['package']} {one['package_version']}", one["licence"], *counts)
    table.add_row("all", "", "", *(f"{sum(one[key] for one in entries.values()):,}" for key in COUNTS))
    return table


def carry(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="The folder of a pack.")],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where it goes: a new or an empty folder.")
    ],
) -> None:
    """Compress a pack for a machine without a network; the unpack.py beside it restores the same bytes there."""
    from statemix_research.language.carry import SCRIPT, pack_up

    if not (pack / "meta.json").is_file():
        raise ValueError(f"PACK: {pack} is not a pack, it has no meta.json")
    size = pack_up(pack, folder)
    output().say(f"{folder}: {size:,} bytes; to restore the pack there: python {SCRIPT} PACK")


def quality(
    outcomes: Annotated[Path | None, GIVEN] = None,
    out: Annotated[Path | None, typer.Option(help="Write the next runs to this file, JSON lines.")] = None,
    tokens: Annotated[int, typer.Option(help="Of the pack's training split; the corpus's.")] = 50_385_517,
    run: Annotated[Path | None, typer.Option(help="Train the next runs, in this folder.")] = None,
    pack: Annotated[Path | None, typer.Option(help="With --run: the corpus's pack.")] = None,
    seconds: Annotated[float, typer.Option(help="With --run: how long it may take.")] = 1200.0,
    page: Annotated[Path | None, typer.Option(help="With --outcomes: write the page here, a folder.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="With --run: a model; may be repeated.")] = None,
) -> None:
    """Show the language models that are compared and the runs that come next, by the outcomes so far.

    A line of --out is a run, and under "settings" what statemix lm train takes. With --run they are trained here, and
    RUN/outcomes.jsonl has a line for each; outcomes that are there count as well.
    """
    from statemix_research.language.plan import lm_settings, next_runs, sessions

    if (run is None) is not (pack is None):
        raise ValueError("--run, --pack: got one of them, expected both")
    if page is not None and outcomes is None:
        raise ValueError("--page: got it alone, expected --outcomes beside it")
    known = [] if outcomes is None else _read(outcomes)
    if page is not None and outcomes is not None:
        from statemix_research.language.report import write_page

        for path in write_page(known, outcomes, page):
            output().say(f"wrote {path}")
        return
    if run is not None and pack is not None:
        from statemix_research.language.execute import OUTCOMES, execute

        known += _read(run / OUTCOMES) if (run / OUTCOMES).exists() else []
        chosen = [one for one in next_runs(known) if not only or one.model in only]
        execute(chosen, pack, run, seconds, lambda line: output().say(line), known)
        return
    runs = next_runs(known)
    output().print(_models())
    for number, held in enumerate(sessions(runs) if runs else [], 1):
        seconds = sum(run.seconds() for run in held)
        stages = ", ".join(dict.fromkeys(run.stage for run in held))
        output().say(f"session {number}, {stages}: {len(held)} runs, expected {seconds:,.0f} s", style="dim")
    output().say(f"next: {len(runs)} runs" if runs else "every run of the plan has an outcome")
    if out is not None:
        entries = [asdict(run) | {"settings": lm_settings(run, tokens)} for run in runs]
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        replace_file(out, lambda temporary: temporary.write_text(lines, encoding="utf-8"))


def losses(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `statemix lm train`.")],
    out: Annotated[Path, typer.Option(help="The file, JSON lines.")] = Path(
        "research/results/language.jsonl"
    ),
) -> None:
    """Write the held-out losses of language models, which `statemix lm eval` has measured, as rows for a table."""
    from statemix_research.language.heldout import loss_row

    lines = "".join(json.dumps(loss_row(run)) + "\n" for run in runs)
    replace_file(out, lambda temporary: temporary.write_text(lines, encoding="utf-8"))
    output().say(f"{len(runs)} runs: {out}")


def _models() -> Table:
    from statemix_research.language.quality import MODELS, sizes, target_size

    numbers = ("mixers", "without vocabulary", "from target", "embedding and head")
    table = Table(
        "parameters",
        [Column("model"), Column("mixer", prose=True), *(Column(name, number=True) for name in numbers)],
    )
    for model in MODELS:
        size = sizes(model)
        distance = f"{100 * (size.backbone / target_size() - 1):+.2f} %"
        table.add_row(
            model.name, ", ".join(f"{key} {value}" for key, value in model.mixer_arguments().items()),
            f"{size.mixers:,}", f"{size.backbone:,}", distance, f"{size.vocabulary:,}",
        )  # fmt: skip
    return table


def _read(path: Path) -> list[Outcome]:
    """Outcomes from JSON lines; ValueError naming the line that is none."""
    from statemix_research.language.plan import Outcome, QualityRun

    found, names = [], [one.name for one in fields(QualityRun)]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            run = QualityRun(**{name: entry[name] for name in names})
            found.append(Outcome(run, float(entry["loss"]), float(entry["epoch_seconds"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"outcomes: line {number} of {path} is no outcome: {error!r}") from None
    return found
