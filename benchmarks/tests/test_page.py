"""The page of figures and the picture, from made-up records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import passes, targets
from benchmarks.cases import Case
from benchmarks.files import read_json, write_json
from benchmarks.page import make_page, write_page
from benchmarks.page_tables import number
from benchmarks.picture import draw_picture
from benchmarks.timing import summarize

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


def comparison_record():
    def result(ms):
        return {"ms": summarize([ms / 1000, ms / 1000]), "error": 1e-7}

    def row(case, ours, loop, other):
        results = {"statemix": result(ours), "loop": result(loop), "x|y": result(other)}
        return {**case._asdict(), "results": results}

    rows = [row(Case("bdlru", 2, 32, 256, 32), 4, 100, 30), row(Case("hlru", 4, 32, 256, 32), 6, 5460, 33)]
    cpu = {"device": "a CPU", "threads": 2, "versions": {"torch": "2+cpu", "triton": None, "numba": "0.68"}}
    names = {"statemix": "compiled", "loop": "the defining loop", "x|y": "another"}
    return {"bench": "scan", **TOP, **cpu, "contestants": names, "cases": rows}


def training_record():
    ways = [
        {"capture": "off", "ms": summarize([0.008]), "tokens_per_s": 2.65e5},
        {"capture": "graph", "failed": "no GPU"},
    ]
    packed = [
        {
            "side_by_side": 2,
            "ms_per_step": summarize([0.004]),
            "steps_per_s": 250.0,
            "runs_in_ten_minutes": 7.5,
        }
    ]
    config = {"task": {"name": "permutation"}, "training": {"batch_size": 128}}
    return {"bench": "train", **TOP, "config": config, "ways": ways, "packed": packed}


def test_a_record_of_a_cpu_shows_its_times(tmp_path):
    lines = write_page({"cpu.json": comparison_record()}, tmp_path / "speed.md").read_text().splitlines()
    assert line(lines, "BD-LRU m = 2")[1:] == [
        "32×256×32",
        "4 (4–4)",
        "100 (100–100), **25×**",
        "30 (30–30), **7.5×**",
    ]
    assert line(lines, "H-LRU m = 4")[3] == "5,460 (5,460–5,460), **910×**"
    assert line(lines, "[cpu.json]")[2] == "2026-01-02, a CPU, torch 2+cpu, Numba 0.68"
    text = "\n".join(lines)
    assert "(a CPU, 2 threads)" in text
    assert "x\\|y ms" in text
    assert "not measured" not in text  # figures of a GPU
    assert lines[2] == (
        "Timed on a CPU: the scans of statemix, forward + backward, beside loop and x\\|y in 2 cases. "
        "The fastest of the others takes 5.5 to 7.5 times as long as statemix, by case."
    )


def test_the_record_of_the_readme_shows_its_times():
    path = Path(__file__).parents[2] / "benchmarks" / "scan_cpu.json"
    record = read_json(path)
    text = make_page({str(path): record}, path.parent)
    for case in record["cases"]:
        for result in case["results"].values():
            assert number(result["ms"]["median"]) in text


def test_decoding_and_training_show_their_times(page, tmp_path):
    assert line(page, "BDLRU m=4 | 1024")[4:] == ["12 (11–13)", "1: 8, 1025: 8.2, 1000065: 8.1"]
    assert line(page, "HLRU m=4")[4] == "failed: no kernel"
    lines = write_page({"t.json": training_record()}, tmp_path / "t.md").read_text().splitlines()
    assert line(lines, "off") == ["off", "8 (8–8)", "265,000"]
    assert line(lines, "graph")[1] == "failed: no GPU"
    assert line(lines, "2 |") == ["2", "4 (4–4)", "250", "7.5"]
    assert lines[2] == "Timed on a GPU: training steps run in 2 ways. A training step takes 8 ms."


def test_the_page_says_what_was_compared_and_what_came_out(page):
    assert page[2] == (
        "Timed on a GPU: the scans forward and backward apart beside a plain copy in 4 cases; whole layers beside "
        "2 baselines; one token at a time of 2 layers. The scans reach 61 to 90 % forward and 60 to 80 % backward of "
        "the speed of a copy; baselines take 1.6 times as long as our layer of as many parameters; a step takes 12 µs "
        "a layer."
    )


def test_numbers_have_three_digits_and_no_exponent():
    assert [number(x) for x in (0.41321, 3.4901, 99.96, 100.4, 5456.7, 4.95e6)] == [
        "0.413", "3.49", "100", "100", "5,460", "4,950,000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bench": "rivals"}, "got one of bench 'rivals', expected a record of `statemix bench scan`"),
        ({"versions": None}, "got one without 'versions'"),
        ({"cases": [{"recurrence": "bdlru"}]}, "is not a whole record of `statemix bench scan`"),
        ({"cases": 3}, "is not a whole record"),
        ({"date": 3}, "got one without 'date'"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"^x\.json: {message}"):
        write_page({"x.json": comparison_record() | change}, tmp_path / "x.md")
    missing = {key: value for key, value in scan_record().items() if key != "device"}
    with pytest.raises(ValueError, match=r"^x\.json: got one without 'device'"):
        write_page({"x.json": missing}, tmp_path / "x.md")
    assert not list(tmp_path.iterdir())


def test_only_what_is_told_is_written(tmp_path):
    """No other file, whatever the name: an ending that is no picture's left a file beside it."""
    pytest.importorskip("matplotlib")
    record = tmp_path / "scan.json"
    write_json(record, scan_record())
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


def test_the_commands_write_where_they_are_told(tmp_path, monkeypatch, capsys):
    from statemix.cli.app import run

    write_json(tmp_path / "scan.json", comparison_record())
    monkeypatch.chdir(tmp_path)
    assert run(["bench", "picture", "scan.json"]) == 2
    assert "--out" in capsys.readouterr().err
    assert run(["bench", "report", "scan.json"]) == 0
    assert "| BD-LRU m = 2 | 32×256×32 | 4 (4–4) |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["scan.json"]
