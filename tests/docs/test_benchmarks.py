"""The figures of docs/benchmarks.md are those of the records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
NAMES = {"bdlru": "BD-LRU", "hlru": "H-LRU"}


def record(name):
    return json.loads((ROOT / "benchmarks" / "records" / f"{name}.json").read_text())


def line(start):
    return next(line for line in PAGE.splitlines() if line.startswith(start))


def numbers(text):
    return [float(number.replace(" ", "")) for number in re.findall(r"\d[\d ]*(?:\.\d+)?", text)]


def test_scans_on_a_cpu():
    content = record("scan_cpu")
    for case in content["cases"]:
        row = line(f"| {NAMES[case['recurrence']]}, m = {case['m']} |")
        statemix, *others = [one["ms"]["median"] for one in case["results"].values()]
        expected = [statemix] + [value for ms in others for value in (ms, ms / statemix)]
        assert numbers(row.split("|", 2)[2]) == pytest.approx(expected, rel=6e-3)


SHAPES = [(8, 2048), (32, 2048), (1, 65536)]


def test_scans_on_a_gpu():
    cases = {
        (c["recurrence"], c["m"], c["blocks"], c["batch"], c["length"]): c
        for c in record("scan_h100")["cases"]
    }
    seen = 0
    for recurrence, m, blocks in {key[:3] for key in cases} - {("bdlru", 3, 341), ("bdlru", 5, 204)}:
        cells = line(f"| {NAMES[recurrence]} m = {m} | {blocks} |").split("|")[3:6]
        for cell, (batch, length) in zip(cells, SHAPES, strict=True):
            case = cases.get((recurrence, m, blocks, batch, length))
            if case is None:
                assert cell.strip() == "–"
                continue
            expected = [case[way]["percent_of_copy"] for way in ("forward", "backward")]
            assert numbers(cell) == pytest.approx(expected, abs=0.501)
            seen += 1
    assert seen >= 30


def test_decoding():
    rows = {"bdlru": "BD-LRU", "hlru": "H-LRU"}
    for layer in record("decode_h100")["layers"]:
        name = f"| {rows[layer['layer']]} m = {layer['m']} |" if layer["layer"] in rows else "| cuDNN LSTM |"
        row = next(text for text in PAGE.split("## Decoding")[1].splitlines() if text.startswith(name))
        stack, near, far, position = numbers(row.split("|", 2)[2])
        alone = layer["one_layer"]
        expected = [layer["us"]["median"], alone[0]["us"]["median"], alone[-1]["us"]["median"]]
        assert [stack, near, far] == pytest.approx(expected, abs=0.0501)
        assert position == alone[-1]["position"]


LANGUAGE = (ROOT / "docs" / "language-models.md").read_text()
MODELS = {"bdlru-m4": "BD-LRU m = 4", "hlru-m16": "H-LRU m = 16", "transformer": "Transformer"}
TRAINED = {
    **MODELS, **{f"bdlru-m{m}": f"BD-LRU m = {m}" for m in (1, 2, 8, 16)},
    "lstm": "LSTM", "gated-deltanet": "Gated DeltaNet", "mamba2": "Mamba-2",
}  # fmt: skip
PARTS = ("prompt", "generation")


def language_row(section, model):
    """The numbers of a model's row below a heading of the page of language models."""
    text = LANGUAGE.split(f"### {section}\n")[1].split("\n#")[0]
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {TRAINED[model]} |"))
    return numbers(row.split("|", 2)[2])


@pytest.mark.parametrize("model", MODELS)
def test_language_models(model):
    parts = record("language_models_h200")
    rows = {part: [row for row in parts[part] if row["model"] == model] for part in PARTS}
    (prompt,), (generation,) = rows["prompt"], rows["generation"]
    ms, memory = language_row("First token of a long prompt", model)
    assert ms == pytest.approx(prompt["ms"]["median"], abs=0.501)
    assert memory == pytest.approx(prompt["memory_gib"], abs=0.00501)
    assert language_row("Generated tokens", model) == pytest.approx([generation["tokens_per_s"]], abs=0.501)


@pytest.mark.parametrize("model", TRAINED)
def test_training_of_language_models(model):
    rows = [row for row in record("language_models_training_h200")["training"] if row["model"] == model]
    assert [row["length"] for row in rows] == [2048, 16384]
    training = [x for row in rows for x in (row["tokens_per_s"], 100 * row["share_of_matmul"])]
    assert language_row("Training steps", model) == pytest.approx(training, abs=0.501)


def test_the_hosts_time():
    (row,) = (row["us"] for row in record("host_h200")["layers"] if (row["layer"], row["m"]) == ("bdlru", 4))
    for start, call in (
        ("| on a thread", "layer, gradient"),
        ("| on the calling", "layer, gradient, on one thread"),
    ):
        assert numbers(line(start)) == pytest.approx([row[call]["median"]], abs=0.6)
