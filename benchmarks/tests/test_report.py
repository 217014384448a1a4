"""The page of tables and the picture, from made-up records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.app import PROGRAM
from benchmarks.measure import as_record
from benchmarks.picture import draw_picture
from benchmarks.records import read_record, write_record
from benchmarks.report import make_page, number, write_page
from benchmarks.scan_passes import PASSES
from benchmarks.shapes import ScanShape
from statemix.timing import summarize

RECORDS = sorted((Path(__file__).parents[1] / "records").glob("*.json"))

TOP = {
    "command": "python -m benchmarks x", "date": "2026-01-02T03:04:05+00:00", "device": "a GPU",
    "versions": {"torch": "2", "triton": "3"},
}  # fmt: skip


def timed(ms, **more):
    return as_record(summarize([ms])) | more


def scan_row(shape, forward, backward):
    row = {**shape._asdict(), "dtype": "bfloat16", "errors": {"states": 1e-3}}
    for name, percent in (("forward", forward), ("backward", backward), ("both", 50.0)):
        row[name] = timed(0.125, percent_of_copy=percent, bytes=1, tb_per_s=1.0)
    return row


def scan_record():
    rows = [
        scan_row(ScanShape("bdlru", 4, 8, 2048, 256), 90.0, 70.5),
        scan_row(ScanShape("bdlru", 4, 8, 2048, 256, hard=True), 95.0, 71.0),
        scan_row(ScanShape("hlru", 4, 8, 2048, 1024), 85.0, 80.0),
        scan_row(ScanShape("bdlru", 2, 1, 65536, 512), 61.0, 60.0),
        {**ScanShape("bdlru", 16, 1, 65536, 64)._asdict(), "dtype": "bfloat16", "failed": "no kernel"},
    ]
    others = {
        "associative_scan": {
            "description": "d", "package": "torch 2", "dtype": "float32", "case": rows[0],
            "forward": timed(20), "both": timed(50), "relative_time": 150.0,
        },
        "chunk_hgrn": {"description": "d", "package": "fla None", "skipped": "not installed: pip install x"},
    }  # fmt: skip
    copy = timed(1.0, tb_per_s=4.2, bytes=1)
    more = {"passes": list(PASSES), "dtype": "bfloat16", "copy": copy, "cases": rows, "baselines": others}
    return {"bench": "scan", **TOP, **more}


def layer_record():
    bdlru = {
        "name": "BDLRU m=4", "m": 4, "blocks": 256, "parameters": 7_345_152, "forward": timed(1), "both": timed(2.5),
        "tokens_per_s": 6e6, "products": {"both": timed(2)}, "times_products": 1.25,
    }  # fmt: skip
    against = {"name": "BDLRU m=4", "blocks": 256, "parameters": 7_345_152}
    others = {
        "DeltaNet": {
            "parameters": 7_376_000, "forward": timed(2), "both": timed(4), "tokens_per_s": 4e6, "relative_time": 1.6,
            "against": against,
        },
        "GLA": {"failed": "RuntimeError: out of memory"},
    }  # fmt: skip
    shape = {"preset": "layer", "dim": 1024, "batch": 8, "length": 2048, "dtype": "bfloat16"}
    return {"bench": "layer", **TOP, **shape, "layers": [bdlru], "baselines": others}


def decode_record():
    def times(us):
        return {"median": us, "lower_quartile": us - 1, "upper_quartile": us + 1}

    def at(position, us):
        return {"position": position, "us": times(us)}

    row = {"layer": "bdlru", "m": 4, "dim": 1024, "batch": 128, "us": times(12.0)}
    far = row | {"one_layer": [at(1, 8.0), at(1025, 8.2), at(1_000_065, 8.1)]}
    failed = {"layer": "hlru", "m": 4, "failed": "no kernel"}
    return {"bench": "decode", **TOP, "layers": [far, failed]}


def implementations_record():
    def result(ms):
        return {"ms": as_record(summarize([ms, ms]))["ms"], "error": 1e-7}

    def row(shape, statemix, loop, other):
        results = {"statemix": result(statemix), "loop": result(loop), "x|y": result(other)}
        return {**shape._asdict(), "results": results}

    rows = [
        row(ScanShape("bdlru", 2, 32, 256, 32), 4, 100, 30),
        row(ScanShape("hlru", 4, 32, 256, 32), 6, 5460, 33),
    ]
    cpu = {"device": "a CPU", "threads": 2, "versions": {"torch": "2+cpu", "triton": None, "numba": "0.68"}}
    names = {"statemix": "compiled", "loop": "the defining loop", "x|y": "another"}
    return {"bench": "scan", **TOP, **cpu, "implementations": names, "cases": rows}


def training_record():
    modes = [
        {"mode": "off", "ms": as_record(summarize([8.0]))["ms"], "tokens_per_s": 2.65e5, "ready_s": 1.5},
        {"mode": "graph", "failed": "no GPU"},
    ]
    packed = [
        {
            "concurrent": 2,
            "ms_per_step": as_record(summarize([4.0]))["ms"],
            "steps_per_s": 250.0,
        }
    ]
    config = {"task": {"name": "permutation"}, "training": {"batch_size": 128}}
    return {"bench": "train", **TOP, "config": config, "modes": modes, "packed": packed}


@pytest.fixture
def page(tmp_path):
    records = {"scan.json": scan_record(), "layer.json": layer_record(), "decode.json": decode_record()}
    paths = {str(tmp_path / "records" / name): record for name, record in records.items()}
    return write_page(paths, tmp_path / "docs" / "speed.md").read_text().splitlines()


def line(page, start):
    (found,) = [text for text in page if text.startswith(f"| {start}")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_scans_stand_beside_their_sizes(page):
    assert line(page, "scan | N") == [
        "scan", "N", "8×2048 forward", "8×2048 backward", "1×65536 forward", "1×65536 backward"
    ]  # fmt: skip
    assert line(page, "BD-LRU m = 4 | 256") == ["BD-LRU m = 4", "256", "125 (90 %)", "125 (70.5 %)", "", ""]
    assert line(page, "BD-LRU m = 4, hard")[2:4] == ["125 (95 %)", "125 (71 %)"]
    assert line(page, "BD-LRU m = 2")[4:] == ["125 (61 %)", "125 (60 %)"]
    assert line(page, "BD-LRU m = 16")[4] == "failed: no kernel"


def test_baselines_stand_beside_statemix(page):
    assert line(page, "associative_scan")[1:] == [
        "d; torch 2, float32",
        "8×2048×256, m = 4",
        "20",
        "50",
        "150×",
    ]
    assert line(page, "chunk_hgrn")[1] == "skipped: not installed: pip install x"
    assert line(page, "BDLRU m=4")[1:] == ["7,345,152", "1", "2.5", "", "6,000,000", "1.25×", ""]
    assert line(page, "DeltaNet")[2:] == ["2", "4", "", "4,000,000", "", "1.6×"]
    assert line(page, "GLA")[1] == "failed: RuntimeError: out of memory"


def test_every_record_stands_beside_its_command_and_hardware(page):
    for name in ("scan", "layer", "decode"):
        assert line(page, f"[{name}]")[1:] == [
            "`python -m benchmarks x`", "a GPU", "torch 2, triton 3", "2026-01-02"
        ]  # fmt: skip
    assert line(page, "[scan]")[0] == "[scan](../records/scan.json)"


def test_steps_and_training(page, tmp_path):
    assert line(page, "BD-LRU m = 4 | 1024")[3:] == ["12 (11–13)", "1: 8, 1025: 8.2, 1000065: 8.1"]
    assert line(page, "H-LRU m = 4 |  |")[3] == "failed: no kernel"
    lines = make_page({"t.json": training_record()}, tmp_path).splitlines()
    assert line(lines, "permutation, batch 128 | off")[2:] == ["8 (8–8)", "265,000", "1.5", ""]
    assert line(lines, "permutation, batch 128 | graph")[2] == "failed: no GPU"
    assert line(lines, "permutation, batch 128 | 2 |")[2:] == ["4 (4–4)", "250"]


def test_a_record_of_a_cpu(tmp_path):
    lines = make_page({"cpu.json": implementations_record()}, tmp_path).splitlines()
    assert line(lines, "scan | B×T×N")[2:5] == ["statemix", "loop", "x\\"]
    assert line(lines, "BD-LRU m = 2")[1:] == [
        "32×256×32",
        "4 (4–4)",
        "100 (100–100), 25×",
        "30 (30–30), 7.5×",
    ]
    assert line(lines, "H-LRU m = 4")[3] == "5,460 (5,460–5,460), 910×"
    assert line(lines, "[cpu]")[2:] == ["a CPU", "torch 2+cpu, numba 0.68, 2 threads", "2026-01-02"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_of_the_repository_is_read(path):
    record = read_record(path)
    text = make_page({str(path): record}, path.parent)
    assert f"[{path.stem}]({path.name})" in text
    for row in record.get("cases", []):
        for result in row.get("results", {}).values():
            assert number(result["ms"]["median"]) in text


def test_the_page_of_all_records_is_short():
    """What the documentation shows: every measurement of speed."""
    shown = [path for path in RECORDS if not path.stem.startswith(("kernel_", "baselines_"))]
    text = make_page({str(path): read_record(path) for path in shown}, Path())
    assert len(text.splitlines()) <= 230
    assert "statemix bench" not in text


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("speed.png", "speed.svg"):
        drawn = draw_picture({"l": layer_record(), "s": scan_record()}, tmp_path / "docs" / name)
        assert drawn.stat().st_size > 5000
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["speed.png", "speed.svg"]
    assert "<svg" in (tmp_path / "docs" / "speed.svg").read_text()


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
            read_record(path)
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "none.json")


def test_numbers_have_three_digits_and_no_exponent():
    assert [number(x) for x in (0.41321, 3.4901, 99.96, 100.4, 5456.7, 4.95e6)] == [
        "0.413", "3.49", "100", "100", "5,460", "4,950,000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bench": "mystery"}, "got a record of 'mystery', expected one of `python -m benchmarks`"),
        ({"cases": [{"recurrence": "bdlru"}]}, "is not a whole record of 'scan'"),
        ({"cases": 3}, "is not a whole record"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"^x\.json: {message}"):
        write_page({"x.json": implementations_record() | change}, tmp_path / "x.md")
    assert not list(tmp_path.iterdir())


def test_hostile_text_of_a_record_is_one_cell(tmp_path):
    record = implementations_record() | {"device": "a|b\x1b[1m\nc"}
    assert line(make_page({"x.json": record}, tmp_path).splitlines(), "[x]")[2:4] == ["a\\", "b\\x1b[1m\\nc"]


def test_only_what_is_told_is_written(tmp_path):
    """No other file, whatever the name: an ending that is no picture's left a file beside it."""
    pytest.importorskip("matplotlib")
    record = tmp_path / "scan.json"
    write_record(record, scan_record())
    stranger = tmp_path / "stranger.png"
    stranger.write_bytes(b"kept")
    (tmp_path / "link.png").symlink_to(stranger)
    for name in ("speed", "speed.jpg", "scan.json", ".png"):
        with pytest.raises(ValueError, match=r"^out: got '.*', expected a name that ends in .png or .svg"):
            draw_picture({str(record): scan_record()}, tmp_path / name)
    with pytest.raises(ValueError, match=r"which is one of the records"):
        write_page({str(record): scan_record()}, tmp_path / "." / "scan.json")
    draw_picture({str(record): scan_record()}, tmp_path / "link.png")
    assert stranger.read_bytes() == b"kept"
    assert (tmp_path / "link.png").read_bytes().startswith(b"\x89PNG")
    draw_picture({str(record): scan_record()}, tmp_path / "new" / "a.SVG")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "link.png", "new", "new/a.SVG", "scan.json", "stranger.png",
    ]  # fmt: skip


def run(text, capsys):
    code = PROGRAM.run(text.split())
    return code, *capsys.readouterr()


def test_the_commands_write_where_they_are_told(tmp_path, monkeypatch, capsys):
    write_record(tmp_path / "scan.json", implementations_record())
    monkeypatch.chdir(tmp_path)
    code, _, err = run("picture scan.json", capsys)
    assert code == 2 and "--out" in err
    code, out, _ = run("report scan.json", capsys)
    assert code == 0 and "| BD-LRU m = 2 | 32×256×32 | 4 (4–4) |" in out
    assert [path.name for path in tmp_path.iterdir()] == ["scan.json"]


@pytest.mark.parametrize(
    "text",
    [
        "scan --shapes bdlru:2 --batch 2 --length 8 --blocks 3",
        "scan --shapes hlru:2 --sizes 2x16x8 --baselines none --hard",
        "layer --dim 32 --batch 2 --length 9 --baselines none",
        "decode --layers hlru:4 --positions 1,99 --dim 16 --batch 2",
    ],
)
def test_a_measurement_is_recorded_and_shown(tmp_path, monkeypatch, capsys, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(measure.COPY_BYTES, "cpu", 1 << 16)
    code, out, err = run(f"{text} --device cpu --repeats 3 --out new/x.json", capsys)
    assert code == 0, err
    assert "recorded in new/x.json" in out and "–" in err
    record = read_record(tmp_path / "new" / "x.json")
    assert record["bench"] == text.split()[0] and record["command"].startswith("python -m benchmarks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan --shapes bdlru", "shapes: got 'bdlru', expected bdlru:m"),
        ("scan --device tpu", "device: got 'tpu', expected"),
        ("scan --device cpu --hard", "hard: got --hard on the CPU alone, expected --sizes beside it"),
        ("scan --device cpu --dtype bfloat16", "dtype: got 'bfloat16', expected float32"),
        ("scan --device cpu --sizes 1x2x8 --batch 3", "sizes: got '1x2x8' beside --batch"),
        ("scan --length 0", "length: got 0"),
        ("layer --preset x", "preset: got 'x', expected one of layer, paper"),
        ("layer --device cpu --baselines x", "baselines: got 'x', expected all, none or some of DeltaNet"),
        ("decode --layers gru:1", "layers: got 'gru:1'"),
        ("train --packed 1,x", "packed: got '1,x', expected whole numbers"),
        ("train --device cpu training.lr=x", "training.lr"),
    ],
)
def test_bad_options(capsys, text, words):
    code, _, err = run(text, capsys)
    assert code == 2 and words in err


def test_a_scan_that_fails_is_the_exit_code(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("no kernel")

    monkeypatch.setattr("benchmarks.scan_cpu.measure", broken)
    code, out, err = run("scan --device cpu --shapes bdlru:2", capsys)
    assert "failed: RuntimeError: no kernel" in out
    assert code == 1 and "1 of 1 failed, the first: RuntimeError: no kernel" in err
