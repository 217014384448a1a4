"""The page of what hard layers learn of automata: tables, a figure and data, made of the lists that have results."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from statemix.analysis import spread
from statemix.report import draw_line, look_of, new_panels
from statemix.tasks import smallest_block
from statemix_research.automata.experiments import BEST, EXPERIMENTS, GROUPS, proved, read_rows, solved
from statemix_research.automata.training import Row
from statemix_research.automata.words import Words
from statemix_research.paper.figures import png_of
from statemix_research.paper.pages import notes_of, write_file
from statemix_research.paper.tables import NONE, code, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "automata"
"""Of the page, and of the note with its text. A mark such as "<!-- learned: s5 -->" stands there for a table of some
lists; lines below it, such as published values, go on with the table."""

MARK = re.compile(r"<!-- (\w+): ([\w ]+) -->\n")

Results = Mapping[str, Sequence[Row]]
"""The rows of every list that has some, in the order of the lists."""

MODELS = {
    "bdlru": "BD-LRU m = {m}, {rows}",
    "hlru": "H-LRU m = {m}, {rows}",
    "layers": "BD-LRU m = {m}, {rows}",
    "lstm": "LSTM",
    "pdssm": "PD-SSM",
}

LANGUAGES = ("a_cycle_navigation", "a_even_pairs", "a_modular_arithmetic", "a_parity")


def read_results(folder: Path) -> Results:
    """The results in a folder, a file of JSON lines for each list."""
    found = {name: read_rows(folder / f"{name}.jsonl") for name in EXPERIMENTS}
    return {name: rows for name, rows in found.items() if rows}


def write_page(source: Path, folder: Path) -> list[Path]:
    """Write automata.md, automata.png and data/automata.csv into a folder; returns the paths. RunError if it fails."""
    results = read_results(source)
    contents = {
        folder / f"{NAME}.md": ("\n".join(page_lines(results, source)) + "\n").encode(),
        folder / f"{NAME}.png": png_of(draw(results)),
        folder / "data" / f"{NAME}.csv": to_csv(results).encode(),
    }
    for path, content in contents.items():
        write_file(path, content)
    return list(contents)


def page_lines(results: Results, source: Path) -> Iterator[str]:
    """The page in Markdown. A part of its text whose tables all lack runs is left out."""
    for part in re.split(r"\n(?=##+ )", "\n".join(notes_of(NAME))):
        lists = [name for _, names in MARK.findall(part) for name in names.split()]
        if not lists or any(name in results for name in lists):
            yield from (*MARK.sub(lambda mark: _table(mark, results), part).strip().split("\n"), "")
    yield from ("## Data", "", *_origin(results, source))


def _table(mark: re.Match[str], results: Results) -> str:
    chosen = {name: results[name] for name in mark[2].split() if name in results}
    return "".join(f"{line}\n" for line in TABLES[mark[1]](chosen)) if chosen else ""


def _origin(results: Results, source: Path) -> Iterator[str]:
    """Where the numbers come from, and which are missing."""
    devices = Counter(row["device"] for rows in results.values() for row in rows)
    listed = ", ".join(f"{count} on {code(device)}" for device, count in devices.items()) or "none"
    yield f"- Runs: {listed}; read from {code(source)}. Every run: [{NAME}.csv](data/{NAME}.csv)."
    if empty := [code(name) for name in EXPERIMENTS if name not in results]:
        yield f"- Lists without runs yet: {', '.join(empty)}."
    if parts := [
        f"{code(name)} ({count})" for name, rows in results.items() if (count := _missing(name, rows))
    ]:
        yield f"- Lists with runs missing, and how many: {', '.join(parts)}."


def _missing(name: str, rows: Sequence[Row]) -> int:
    have, one = {(row["remedies"], row["seed"]) for row in rows}, EXPERIMENTS[name]
    return len({(" + ".join(how), seed) for how in one.remedies for seed in range(one.seeds)} - have)


def model_of(row: Row) -> str:
    """The model of a run, as tables name it."""
    recipe = row["recipe"]
    rows = "hard" if recipe.get("hard", True) else "soft"
    signed = "" if recipe.get("normalization", "softmax") == "softmax" else f", {recipe['normalization']}"
    return MODELS[recipe.get("model", "bdlru")].format(m=recipe["block_size"], rows=rows + signed)


def by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by model; where several recipes train one model, the recipe is named as well."""
    several: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        several.setdefault((model_of(row), row["remedies"]), []).append(row)
    count = Counter(model for model, _ in several)
    return {m if count[m] == 1 else f"{m} ({code(how)})": those for (m, how), those in several.items()}


def lengths_of(results: Results, key: str) -> list[str]:
    """The lengths that runs were tested at, the shortest first."""
    return sorted({n for rows in results.values() for row in rows for n in row[key]}, key=int)


def learned(results: Results) -> list[str]:
    """What was learned: a line for each list and model, with the least accuracy at each length, rounded down."""
    results = {k: [r | {"at": r["at"] or {"512": r["accuracy"]}} for r in v] for k, v in results.items()}
    lengths, lines = lengths_of(results, "at"), []
    for name, model, rows in _groups(results):
        size = EXPERIMENTS[name].at_once or EXPERIMENTS[name].seeds  # of populations: restarts are theirs
        restarts = sum({row["seed"] // size: row["restarted"] for row in rows}.values())
        steps = sorted(row["solved"] for row in rows if row["solved"] is not None)
        found = [[row["at"][n] for row in rows if n in row["at"]] for n in lengths]
        lines.append([
            code(name), model, _least_size(name, rows[0]["recipe"]), proved(rows),
            f"{statistics.median(steps):.0f}, {steps[-1]}" if steps else NONE,
            str(restarts), *(f"{math.floor(1e4 * min(at)) / 1e4:.4f}" if at else NONE for at in found),
        ])  # fmt: skip
    heads = ["list", "model", "least m", "proved", "steps: median, most", "begun anew"]
    heads += [f"{int(n):,}".replace(",", " " if len(n) > 4 else "") for n in lengths]
    return markdown(heads, lines)


def _least_size(name: str, recipe: Mapping[str, Any]) -> str:
    """The block size that the rule for m asks for."""
    words = EXPERIMENTS[name].words()
    automaton = words.automaton() if isinstance(words, Words) else None
    signed = recipe.get("normalization", "softmax") in ("tanh", "linear", "silu")
    return str(smallest_block(automaton, signed=signed).needed) if automaton else NONE


def _groups(results: Results) -> Iterator[tuple[str, str, list[Row]]]:
    """Every list, model and its rows."""
    yield from ((name, *one) for name, rows in results.items() for one in by_model(rows).items())


MEASURES: Mapping[str, Callable[[Row], float | None]] = {
    "maximum": lambda row: row["best"],
    "final": lambda row: row["accuracy"],
    "at 65 536, solved runs": lambda row: row["at"].get("65536") if row["solved"] is not None else None,
}
"""Protocol A: what is taken of a run."""


def languages(results: Results) -> list[str]:
    """Protocol A, in percent: a line for each model and measure."""
    runs = {name: by_model(results.get(name, ())) for name in LANGUAGES}
    lines = []
    for model in dict.fromkeys(model for models in runs.values() for model in models):
        for name, measure in MEASURES.items():
            found = [{row["seed"]: measure(row) for row in models.get(model, ())} for models in runs.values()]
            values = [{seed: 100 * x for seed, x in those.items() if x is not None} for those in found]
            seeds = sorted(set.intersection(*map(set, values)))
            means = [statistics.fmean(one[seed] for one in values) for seed in seeds]
            if any(values):
                lines.append([model, name, *map(_percent, (*(one.values() for one in values), means))])
    return markdown(["model", "measure", *(name[2:].replace("_", " ") for name in LANGUAGES), "mean"], lines)


def _percent(values: Iterable[float]) -> str:
    """Mean ± deviation (least; n)."""
    one = spread(values)
    return f"{one.mean:.2f} ± {one.deviation:.2f} ({one.low:.2f}; {one.n})" if one.n else NONE


def whole_words(results: Results) -> list[str]:
    """Protocol B: share of words without an error at each length, mean and range."""
    lengths, lines = lengths_of(results, "whole"), []
    for name, model, rows in _groups(results):
        shares = [spread(row["whole"][n] for row in rows if n in row["whole"]) for n in lengths]
        cells = [f"{one.mean:.3f} ({one.low:.3f}–{one.high:.3f})" if one.n else NONE for one in shares]
        lines.append([name[2:].upper(), model, proved(rows), *cells])
    return markdown(["group", "model", "proved", *lengths], lines)


def remedies(results: Results) -> list[str]:
    """How many runs are solved, by remedies and list."""
    cells: dict[str, dict[str, str]] = {}
    for name, rows in results.items():
        for label in dict.fromkeys(row["remedies"] for row in rows):
            those = [row for row in rows if row["remedies"] == label]
            cells.setdefault(_left_out(label), {})[name] = solved(those)
    heads = [f"{code(name)}, {rows[0]['recipe']['steps']} steps" for name, rows in results.items()]
    lines = [[label, *(one.get(name, NONE) for name in results)] for label, one in cells.items()]
    return markdown(["remedies", *heads], lines)


def _left_out(label: str) -> str:
    """Remedies; of `BEST`, what is left out."""
    left = set(BEST) - set(parts := label.split(" + "))
    few = set(parts) <= set(BEST) and len(left) < 2
    return "all but " + code(*left) if few and left else "all" if few else code(label)


TABLES: Mapping[str, Callable[[Results], list[str]]] = {
    table.__name__: table for table in (learned, languages, whole_words, remedies)
}
"""What may stand at a `MARK`."""


def draw(results: Results) -> Figure:
    """The figure: steps to the proof of each group, then words right by length where protocol B compares models."""
    proofs = {
        f"{name[:2].upper()}{name[2:].replace('_', ' ') or ' at 16'}": steps
        for name in ("s5", *(f"{label}_at_128" for label in reversed(GROUPS)))
        if (steps := [row["solved"] for row in results.get(name, ()) if row.get("proved")])
    }
    groups = [name for name in results if name.startswith("b_") and len(by_model(results[name])) > 1]
    figure, (first, *others) = new_panels(1 + len(groups), min(3, 1 + len(groups)), (4.6, 2.8))
    for place, steps in enumerate(proofs.values()):
        first.plot(steps, [place] * len(steps), "o", color=look_of("hard bdlru").color, alpha=0.5)
    first.set_yticks(range(len(proofs)), list(proofs))
    first.set(xscale="log", xlabel="steps to the proof", ylim=(-0.6, len(proofs) - 0.4))
    first.xaxis.set_major_formatter(lambda x, place: f"{x:g}")
    for panel, name in zip(others, groups, strict=True):
        for model, rows in by_model(results[name]).items():
            lengths = [int(n) for n in rows[0]["whole"]]
            look = look_of("hard bdlru" if ", hard" in model else model.split(",")[0])
            shares = [spread(row["whole"][str(n)] for row in rows) for n in lengths]
            mean, low, high = ([getattr(one, part) for one in shares] for part in ("mean", "low", "high"))
            draw_line(panel, lengths, mean, low, high, look.color, marker=look.marker, label=model)
        panel.set(title=name[2:].upper(), xlabel="length", ylabel="whole words right", ylim=(-0.03, 1.03))
        panel.legend(fontsize=8)
    return figure


def to_csv(results: Results) -> str:
    """Every run, a line each, in the order of the lists."""
    parts = {"at": "accuracy", "whole": "whole"}
    rows = [
        {
            "list": name, **{key: row.get(key) for key in ("remedies", "seed", "solved", "proved", "accuracy", "best")},
            **{f"{what}_at_{n}": row[key].get(n) for key, what in parts.items() for n in lengths_of(results, key)},
            "device": row["device"], "seconds": row["seconds"], "restarts": row["restarted"],
        }
        for name, those in results.items()
        for row in those
    ]  # fmt: skip
    return pd.DataFrame(rows).convert_dtypes().to_csv(index=False, lineterminator="\n")
