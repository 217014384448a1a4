"""How a page is laid out: nothing scrolls sideways, and no figure is larger than what it shows."""

from __future__ import annotations

import base64
import csv
import re
import struct

import pytest

from statemix.report import write_readme_picture, write_report
from statemix.report.runs import read_groups, shorten
from tests.report.browser import find_chromium, lay_out
from tests.report.copies import copy_run
from tests.report.page import Page

WIDTHS = (1200, 1030, 500)
ODD = '<script>alert("x")</script> \x1b[31mred\x07 \u202eback {{ 7 * 7 }} &amp;'


@pytest.fixture(scope="module")
def odd(trained, tmp_path_factory):
    """A page of runs with long and hostile names, many lengths, long labels, two tasks, and some unfinished ones."""
    many = {str(2**k): 0.9 - k / 50 for k in range(1, 20)}
    root, runs = tmp_path_factory.mktemp("odd"), trained
    deep = root / "/".join(["d" * 60] * 6)
    copy_run(runs / "block-0", deep, {"name": "y" * 3000, "training.lr": 0.1 + 0.2}, accuracy=many)
    copy_run(runs / "block-0", root / "seed", {"training.seed": 1, "training.lr": 0.1 + 0.2}, accuracy=many)
    copy_run(
        runs / "order-0",
        root / ("x" * 200),
        {"training.lr": 0.30000000000000010, "training.schedule": "constant"},
    )
    odd_name = ODD.replace("/", "-")
    copy_run(runs / "order-0", root / odd_name, {"name": ODD, "training.lr": 12345.678, "training.seed": 4})
    copy_run(
        runs / "order-0",
        root / "going",
        {"training.lr": 7.0},
        accuracy={},
        status="interrupted",
        best_accuracy=None,
    )
    other = copy_run(runs / "block-0", root / "other", {"task.name": "permutation"}, accuracy={"524288": 0.5})
    (other / "model.safetensors").unlink()
    return write_report([root], tmp_path_factory.mktemp("odd-page"))


def image_sizes(page):
    """Width and height of every figure as a page shows it, 96 pixels an inch."""
    sizes = {}
    for path in page.parent.glob("*.svg"):
        points = re.search(
            r'<svg [^>]*width="([\d.]+)pt" height="([\d.]+)pt"', path.read_text(), re.DOTALL
        ).groups()
        sizes[path.stem] = tuple(float(number) * 96 / 72 for number in points)
    return sizes


def test_figures_have_a_size_of_their_own(runs, page, tmp_path):
    one, two = image_sizes(write_report([runs / "block-0"], tmp_path / "one")), image_sizes(page)
    assert len(one) == 3
    assert one["eigenvalues"][0] < 400  # one circle fills no screen
    assert all(width < 640 and height < 640 for width, height in one.values())
    assert two["eigenvalues"][0] > one["eigenvalues"][0]
    assert two["eigenvalues"][1] == pytest.approx(one["eigenvalues"][1], abs=2)


def test_what_is_long_may_be_broken(page):
    """What a browser would show: no rule makes anything scroll sideways, or keeps a long word whole."""
    text = page.read_text()
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    rules = {name.strip(): body for name, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style)}
    assert "overflow-wrap: anywhere" in rules["body"]
    assert "max-width: 100%" in rules["figure img"]
    assert "white-space: pre-wrap" in rules["pre"]
    assert "overflow-x: auto" not in style
    assert "nowrap" not in style
    assert not re.search(r"(?<!max-)(?<!min-)width:\s*\d+(rem|px)", style)


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here")
def test_nothing_scrolls_sideways_in_a_browser(odd, page, tmp_path):
    for one in (page, odd):
        for width, laid_out in lay_out(one, WIDTHS, tmp_path).items():
            assert laid_out["wide"] == []
            assert laid_out["size"][0] == width
            assert len(laid_out["shapes"]) == 3
            assert all(150 < height < 700 for _, _, height in laid_out["shapes"])


def test_hostile_names_are_shown_as_text(odd):
    text = odd.read_text()
    assert Page(text).open == []
    assert "<script" not in text
    for file in (text, *(odd.with_name(name).read_text() for name in ("runs.csv", "accuracy_length.svg"))):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", file)
    assert (
        "&lt;script&gt;alert(&#34;x&#34;)&lt;-script&gt; \\x1b[31mred\\x07 \\u202eback {{ 7 * 7 }} &amp;amp;"
        in text
    )


def test_hostile_settings_are_shown_as_text(runs, tmp_path):
    """Whatever a label holds: a figure's text, a cell of the page and of the CSV."""
    settings = {"training.schedule": "constant", "mixer.name": "a\x1b[2J<b>", "mixer.block_size": "1\u202e"}
    copy_run(runs / "block-0", tmp_path / "in" / "a", settings | {"training.lr": 0.5})
    copy_run(runs / "block-0", tmp_path / "in" / "b", settings | {"training.lr": 0.25})
    labels = [group.label for group in read_groups([tmp_path / "in"])]
    assert labels == [f"a\\x1b[2J<b> (lr {lr})" for lr in (0.5, 0.25)]


def test_a_folder_whose_name_is_no_text(runs, tmp_path):
    folder = tmp_path / "bad\udcff"
    try:
        copy_run(runs / "block-0", tmp_path / "good").rename(folder)
    except (OSError, UnicodeError):
        pytest.skip("no such names on this file system")
    (folder / "model.safetensors").unlink()
    text = write_report([folder], tmp_path / "out").read_text()
    assert "bad\\xff" in text


def test_a_table_has_room_for_some_lengths(odd):
    text = odd.read_text()
    shown = [column for column in Page(text).cells[0] if column.startswith("accuracy at")]
    assert len(shown) == 6
    assert (shown[0], shown[-1]) == ("accuracy at 2", "accuracy at 524288")
    with odd.with_name("runs.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    lengths = [column for column in columns if re.fullmatch(r"accuracy at \d+", column)]
    assert f"{len(lengths) - 6} more test lengths" in text
    assert len(lengths) == 21


def test_long_labels_are_broken_and_cut():
    label = "BD-LRU m = 3 (" + "very_long_name " * 20 + ")"
    lines = shorten(label, 36).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 36
    assert lines[-1].endswith("…")
    assert shorten("BD-LRU m = 3", 36) == "BD-LRU m = 3"


def test_a_long_command_is_folded(runs, tmp_path):
    folders = [runs / "order-0"] * 40
    text = write_report(folders, tmp_path).read_text()
    assert "the command that made this page</summary>" in text
    assert "made by <code>" not in text


def test_the_picture_is_what_its_name_says(runs, tmp_path):
    png = write_readme_picture([runs], tmp_path / "new" / "a.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width > 2 * height > 800
    assert b"<svg" in write_readme_picture([runs / "order-0"], tmp_path / "a.SVG").read_bytes()
    for name in ("a", "a.jpg"):
        with pytest.raises(ValueError, match=r"picture: got '.*', expected a name that ends in .svg or .png"):
            write_readme_picture([runs], tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "new", "runs"]


def test_the_embedded_figure_is_the_file(page):
    text = page.read_text()
    for name, (width, height) in image_sizes(page).items():
        assert base64.b64encode((page.parent / f"{name}.svg").read_bytes()).decode() in text
        pixels = struct.unpack(">II", (page.parent / f"{name}.png").read_bytes()[16:24])
        assert pixels == pytest.approx((width * 160 / 96, height * 160 / 96), abs=1)
