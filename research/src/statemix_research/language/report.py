"""The page of the comparison of language models: tables and a figure, made of outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from statemix.analysis import Spread, spread
from statemix.report import look_of, new_panels
from statemix_research.language.plan import (
    BLOCK_SIZES,
    REFERENCE,
    STAGES,
    Outcome,
    compare,
    epoch_times,
    next_runs,
)
from statemix_research.language.quality import MODELS, sizes
from statemix_research.paper.figures import png_of
from statemix_research.paper.pages import notes_of, write_file
from statemix_research.paper.tables import NONE, code, markdown

NAME = "fig4"

HELD_OUT_TOKENS, HELD_OUT_BYTES = 999_795, 4_097_044
"""Of the corpus (research/notes/language-models.md)."""

QUESTION = (
    "Does a moderate block size of BD-LRU give the better language model, and how far is it from attention, Gated "
    "DeltaNet and Mamba-2? All models have equal parameters; they are compared at equal tokens and at equal wall-clock."
)

SETTINGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "tokens": ("Equal tokens: one epoch, 50 million", ("epoch",)),
    "time": (f"Equal time: a {REFERENCE}'s epoch", ("wall-clock",)),
}
"""What is equal among the models: its title and the stages of its runs."""

MIDDLE, ENDS = BLOCK_SIZES[1:-1], BLOCK_SIZES[:: len(BLOCK_SIZES) - 1]
"""Moderate block sizes, and those that they are to beat."""


def bits_per_byte(loss: float) -> float:
    """Bits for a byte of held-out text, from nats a token.

    >>> round(bits_per_byte(4.0), 3)
    1.408
    """
    return loss / math.log(2) * HELD_OUT_TOKENS / HELD_OUT_BYTES


def select(outcomes: Sequence[Outcome], equal: str) -> dict[str, list[Outcome]]:
    """Outcomes by model, best first, of the models that were run with `equal` (a key of `SETTINGS`) the same.

    An epoch of the reference is what the time is equal to, so it counts for both.
    """
    stages, found = SETTINGS[equal][1], dict[str, list[Outcome]]()
    for one in outcomes:
        if one.run.stage in (SETTINGS["tokens"][1] if one.run.model == REFERENCE else stages):
            found.setdefault(one.run.model, []).append(one)
    if set(found) == {REFERENCE}:
        return {}
    return dict(sorted(found.items(), key=lambda item: spread(one.loss for one in item[1]).mean))


def write_page(outcomes: Sequence[Outcome], source: Path, folder: Path) -> list[Path]:
    """Write fig4.md, fig4.png and data/fig4.csv into a folder, and return them. RunError where that fails."""
    drawn = draw(outcomes)
    contents = {
        folder / f"{NAME}.md": ("\n".join(page_lines(outcomes, source, drawn is not None)) + "\n").encode(),
        folder / "data" / f"{NAME}.csv": to_csv(outcomes).encode(),
        **({folder / f"{NAME}.png": drawn} if drawn else {}),
    }
    for path, content in contents.items():
        write_file(path, content)
    return list(contents)


def page_lines(outcomes: Sequence[Outcome], source: Path, drawn: bool) -> Iterator[str]:
    """The page in Markdown."""
    yield from ("# Figure 4: language models", "", QUESTION, "")
    yield "    statemix-research corpus corpus"
    yield "    statemix text tokenizer corpus/text --size 32768 --out corpus/tokenizer.json"
    yield "    statemix text prepare corpus/text --tokenizer corpus/tokenizer.json --validation 0.02 --out corpus/pack"
    yield "    statemix-research quality --run runs/fig4 --pack corpus/pack    # again until every run has an outcome"
    yield f"    statemix-research quality --outcomes {source} --page docs/reproduce"
    yield ""
    if drawn:
        yield f"![Held-out bits per byte]({NAME}.png)"
        yield from ("", "*Held-out bits per byte. Dots: seeds; line: their range. NVIDIA H200.*", "")
    yield from notes_of(NAME)
    for equal, (title, _) in SETTINGS.items():
        if found := select(outcomes, equal):
            yield from (f"## {title}", "", *standings(found, epoch_times(outcomes)), "")
            if verdicts := block_sizes(found):
                yield from (f"### Block sizes at equal {equal}", "", *verdicts, "")
    yield from ("## Learning rates", "", *rates_table(outcomes), "")
    yield from ("## Data", "")
    left = len(next_runs(outcomes))
    yield f"- {len(outcomes)} runs; read from {code(source)}." + (
        f" {left} that can begin are left." if left else ""
    )
    yield "- Cells: mean (lowest–highest; n) over seeds. A difference is separable if its 95 % interval leaves out 0."
    yield f"- Every run: [{NAME}.csv](data/{NAME}.csv)."


def cell(losses: Spread) -> str:
    """Mean (lowest–highest; n) in bits per byte."""
    mean, low, high = map(bits_per_byte, (losses.mean, losses.low, losses.high))
    if not math.isfinite(mean):
        return "diverged"
    return f"{mean:.4f}" + (f" ({low:.4f}–{high:.4f}; {losses.n})" if losses.n > 1 else "")


def standings(found: Mapping[str, Sequence[Outcome]], seconds: Mapping[str, float]) -> list[str]:
    """A line for each model, best first. seconds: of an epoch, by model."""
    built = {model.name: model for model in MODELS}
    lines = [
        [
            name, cell(spread(one.loss for one in several)), _difference(several, found.get(REFERENCE, ())),
            f"{several[0].run.learning_rate:g}", f"{several[0].run.epochs:.2f}", f"{seconds[name]:.0f}",
            f"{sizes(built[name]).backbone / 1e6:.2f} M",
        ]
        for name, several in found.items()
    ]  # fmt: skip
    heads = [
        "model",
        "bits per byte",
        f"less {REFERENCE}",
        "learning rate",
        "epochs",
        "seconds an epoch",
        "parameters",
    ]
    return markdown(heads, lines)


def _difference(several: Sequence[Outcome], others: Sequence[Outcome]) -> str:
    """Of the losses of two models, in bits per byte, with its interval where both have several seeds."""
    names = [one.run.model for one in (*several[:1], *others[:1])]
    if len(set(names)) < 2:
        return NONE
    if min(len(several), len(others)) < 2:
        return f"{bits_per_byte(several[0].loss - others[0].loss):+.4f}"
    found = compare([*several, *others], names[0], names[1])
    return f"{bits_per_byte(found.spread.mean):+.4f} ± {bits_per_byte(found.half_width):.4f}"


def block_sizes(found: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """Each moderate block size against the smallest and the largest; nothing without several seeds of any pair."""
    pairs = [(first, second) for first in MIDDLE for second in ENDS if {first, second} <= found.keys()]
    lines = []
    for first, second in pairs:
        separable = "one seed"
        if min(len(found[first]), len(found[second])) > 1:
            separable = "yes" if compare([*found[first], *found[second]], first, second).separable else "no"
        lines.append([first, second, _difference(found[first], found[second]), separable])
    return markdown(["model", "against", "difference, bits per byte", "separable"], lines) if lines else []


def rates_table(outcomes: Sequence[Outcome]) -> list[str]:
    """Bits per byte after half an epoch, by model and learning rate; the chosen one in bold."""
    tried = [one for one in outcomes if one.run.stage in ("rates", "edges")]
    rates = sorted({one.run.learning_rate for one in tried})
    lines = []
    for model in MODELS:
        losses = {one.run.learning_rate: one.loss for one in tried if one.run.model == model.name}
        if losses:
            cells = {rate: cell(spread([loss])) for rate, loss in losses.items()}
            best = min(losses, key=lambda rate: losses[rate])
            cells[best] = f"**{cells[best]}**"
            lines.append([model.name, *(cells.get(rate, NONE) for rate in rates)])
    return markdown(["model", *(f"{rate:g}" for rate in rates)], lines)


def draw(outcomes: Sequence[Outcome]) -> bytes | None:
    """The figure as PNG: a panel for each setting that has runs, a line for each model."""
    panels = {equal: found for equal in SETTINGS if (found := select(outcomes, equal))}
    if not panels:
        return None
    rows = max(map(len, panels.values()))
    figure, axes = new_panels(len(panels), len(panels), (4.6, 0.9 + 0.27 * rows))
    for panel, (equal, found) in zip(axes, panels.items(), strict=True):
        for place, (name, several) in enumerate(reversed(found.items())):
            values = [bits_per_byte(one.loss) for one in several if math.isfinite(one.loss)]
            look = look_of(name)
            panel.hlines(place, min(values), max(values), color=look.color, linewidth=2)
            panel.plot(values, [place] * len(values), look.marker, color=look.color, markersize=6)
        panel.set_yticks(range(len(found)), list(reversed(found)), fontsize=9)
        panel.set_title(SETTINGS[equal][0], fontsize=10.5)
        panel.set_xlabel("held-out bits per byte")
    return png_of(figure)


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Every run, in the order of the stages."""
    order = list(STAGES)
    rows = [
        {
            **vars(one.run), "loss": one.loss, "bits_per_byte": bits_per_byte(one.loss),
            "epoch_seconds": one.epoch_seconds,
        }
        for one in sorted(outcomes, key=lambda one: order.index(one.run.stage))
    ]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", lineterminator="\n")
