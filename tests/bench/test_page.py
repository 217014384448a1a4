"""The page of figures and the picture, from made-up records."""

from __future__ import annotations

import json

import pytest

from statemix.bench import passes, targets
from statemix.bench.cases import Case
from statemix.bench.files import read_json
from statemix.bench.page import write_page
from statemix.bench.picture import draw_picture
from statemix.bench.timing import summarize

TOP = {
    "command": "statemix bench x", "date": "2026-01-02T03:04:05+00:00", "device": "a GPU",
    "versions": {"torch": "2", "triton": "3"},
}  # fmt: skip


def timed(ms, **more):
    return {"ms": summarize([ms / 1000]), "timed": "a CUDA graph", **more}


def scan_row(case, forward, backward, extra=1.0):
    row = {**case._asdict(), "dtype": "bfloat16", "errors": {"states": 1e-3}}
    for name, percent in (("forward", forward), ("backward", backward), ("both", 50.0)):
        row[name] = timed(0.125, percent_of_copy=percent, bytes=1, tb_per_s=1.0)
    return row | {"extra_memory": {"bytes": 1, "percent_of_gates": extra}}


def scan_record():
    rows = [
        scan_row(Case("bdlru", 4, 8, 2048, 256), 90.0, 70.5),
        scan_row(Case("hlru", 4, 8, 2048, 1024), 85.0, 80.0, extra=6.5),
        scan_row(Case("bdlru", 2, 1, 65536, 512), 61.0, 60.0),
        {**Case("bdlru", 16, 1, 65536, 64)._asdict(), "dtype": "bfloat16", "failed": "no kernel"},
    ]
    others = {
        "associative_scan": {
            "description": "d", "package": "torch 2", "dtype": "float32", "case": rows[0] and rows[0] | {},
            "forward": timed(20), "both": timed(50), "times_ours": 150.0,
        },
        "chunk_hgrn": {"description": "d", "package": "fla None", "left_out": "not installed: pip install x"},
    }  # fmt: skip
    copy = timed(1.0, tb_per_s=4.2, bytes=1)
    more = {"passes": list(passes.PASSES), "dtype": "bfloat16", "copy": copy, "cases": rows, "rivals": others}
    return {"bench": "scan", **TOP, **more}


def layer_record():
    ours = {
        "name": "BDLRU m=4", "m": 4, "blocks": 256, "parameters": 7_345_152, "forward": timed(1), "both": timed(2.5),
        "tokens_per_s": 6e6, "products": {"both": timed(2)}, "times_products": 1.25,
    }  # fmt: skip
    against = {"name": "BDLRU m=4", "blocks": 256, "parameters": 7_345_152}
    others = {
        "DeltaNet": {
            "parameters": 7_376_000, "forward": timed(2), "both": timed(4), "tokens_per_s": 4e6, "times_ours": 1.6,
            "against": against,
        },
        "GLA": {"failed": "RuntimeError: out of memory"},
    }  # fmt: skip
    shape = {"preset": "layer", "dim": 1024, "batch": 8, "length": 2048, "dtype": "bfloat16"}
    return {"bench": "layer", **TOP, **shape, "ours": [ours], "rivals": others}


def decode_record():
    def times(us):
        return {"median": us, "lower_quartile": us - 1, "upper_quartile": us + 1}

    def at(position, us):
        return {"position": position, "us": times(us)}

    row = {"layer": "bdlru", "m": 4, "dim": 1024, "batch": 128, "us": times(12.0)}
    far = row | {"one_layer": [at(1, 8.0), at(1025, 8.2), at(1_000_065, 8.1)]}
    failed = {"layer": "hlru", "m": 4, "failed": "no kernel"}
    return {"bench": "decode", **TOP, "layers": [far, failed]}


@pytest.fixture
def page(tmp_path):
    records = {"scan.json": scan_record(), "layer.json": layer_record(), "decode.json": decode_record()}
    paths = {str(tmp_path / "benchmarks" / name): record for name, record in records.items()}
    text = write_page(paths, tmp_path / "docs" / "speed.md", "## Notes\n\nWhat bounds it.\n").read_text()
    return text.splitlines()


def line(page, start):
    (found,) = [text for text in page if text.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_scans(page):
    assert line(page, "BD-LRU m = 4 ") == [
        "BD-LRU m = 4", "8×2048×256", "125", "90", "85", "125", "**70.5** (missed by 9.5)", "80"
    ]  # fmt: skip
    assert line(page, "H-LRU m = 4")[3:] == ["85", "85", "125", "80", "80"]
    assert line(page, "BD-LRU m = 2")[3] == "**61** (missed by 4)"
    assert line(page, "BD-LRU m = 16")[2] == "failed: no kernel"


def test_other_figures(page):
    assert line(page, "extra memory")[1:3] == ["at most 5 %", "**6.5 %** (missed)"]
    assert line(page, "the authors' algorithm, m = 4, eager")[1:3] == ["at least 100×", "150×"]
    assert line(page, "the authors' algorithm, m = 4, torch.compile")[2] == "not measured"
    assert line(page, "layer, m = 4")[1:3] == ["at most 1.25×", "1.25×"]
    assert line(page, "fla DeltaNet")[1:] == [
        "at least 2×", "**1.6×** (missed)", "[layer.json](../benchmarks/layer.json)"
    ]  # fmt: skip
    assert line(page, "fla GLA")[2] == "not measured"
    assert line(page, "step, BD-LRU m = 4")[1:3] == ["at most 20 µs", "12 µs"]
    assert line(page, "step, slowest")[2] == "1.02×"


def test_every_record_stands_beside_its_command(page):
    for name in ("scan", "layer", "decode"):
        assert line(page, f"[{name}.json]")[1] == "`statemix bench x`"
    assert "not installed: pip install x" in line(page, "chunk_hgrn")
    assert line(page, "GLA")[1] == "RuntimeError: out of memory"
    assert page[-1] == "What bounds it."


def test_every_figure_of_the_table_is_asked():
    asked = [
        (batch, length, recurrence, m)
        for (batch, length), groups in targets.ASKED.items()
        for recurrence, *sizes in groups
        for m in sizes
    ]
    assert len(asked) == len(set(asked)) == 3 * 8 + 2
    for batch, length, recurrence, m in asked:
        row = {"dtype": "bfloat16", "recurrence": recurrence, "m": m, "batch": batch, "length": length}
        right, wrong = (1024, 1024 // m) if recurrence == "hlru" else (1024 // m, 1024)
        assert targets.asked_percent({**row, "blocks": right}) is not None
        assert targets.asked_percent({**row, "blocks": right, "dtype": "float32"}) is None
        if m > 1:
            assert targets.asked_percent({**row, "blocks": wrong}) is None


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("speed.png", "speed.svg"):
        assert (
            draw_picture({"l": layer_record(), "s": scan_record()}, tmp_path / "docs" / name).stat().st_size
            > 5000
        )
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["speed.png", "speed.svg"]
    text = (tmp_path / "docs" / "speed.svg").read_text()
    assert "<svg" in text
    page = write_page({"scan.json": scan_record()}, tmp_path / "docs" / "speed.md").read_text()
    assert "](speed.png)" in page


def test_nothing_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="files: got no measured scan"):
        draw_picture({"l": layer_record()}, tmp_path / "speed.png")
    with pytest.raises(ValueError, match="files: got none"):
        write_page({}, tmp_path / "speed.md")


def test_not_a_record(tmp_path):
    path = tmp_path / "x.json"
    for content in ("{", "[]", json.dumps({"a": 1})):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"x\.json: expected a record"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
