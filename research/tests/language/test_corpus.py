"""The corpus of packages that the tests make, fetched without a network: by a stand-in for apt-get, and by pip."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import zipfile

import pytest
from statemix_research.language import corpus, packages
from statemix_research.language.corpus import build_corpus, describe
from statemix_research.language.sources import TextSource

from statemix.training.files import RunError

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are made with dpkg-deb")

INSTALLED_PIP = bool(list(importlib.metadata.distributions(name="pip")))
SHARED = "This paragraph stands in both of the packages, word for word, and is taken once."
DEBIAN = [TextSource("first", "pkg-a", "GPL-2+"), TextSource("second", "pkg-b", "MIT")]
DESCRIPTIONS = TextSource(
    "descriptions",
    "Translation-en",
    "each",
    "descriptions",
    ("*_Translation-en",),
    grouped=True,
    kind="descriptions",
)
WHEEL = TextSource("api", "made-api==1.2", "MIT", "interface", ("made/*.json",), grouped=True, kind="wheel")

APT = """#!/bin/sh
# apt-get as far as the corpus needs it: packages lie in $MADE
case "$*" in *Acquire::Languages=en*) ;; *) echo "E: no languages" >&2; exit 100 ;; esac
for last; do :; done
case "$*" in
  *" update") cp "$MADE"/*_Translation-en . ;;
  *" download "*)
    cp "$MADE/${last}"_*.deb . 2>/dev/null && exit 0
    echo "E: Unable to locate package $last" >&2
    exit 100 ;;
esac
"""


def prose(name, number):
    return [
        f"Paragraph {k} of the page in {name} says nothing at all, but at some length." for k in range(number)
    ]


def make_debian(made, name, pages):
    """A package with HTML pages: {file name: paragraphs}."""
    root = made / name
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: made\n"
    )
    folder = root / "usr" / "share" / "doc" / name
    folder.mkdir(parents=True)
    for page, paragraphs in pages.items():
        (folder / page).write_text("<body>" + "".join(f"<p>{one}</p>" for one in paragraphs))
    subprocess.run(
        ["dpkg-deb", "--build", name, f"{name}_1%3a2.0-1_all.deb"], cwd=made, check=True, capture_output=True
    )


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder with packages, and an apt-get that gives them out."""
    folder, programs = tmp_path / "made", tmp_path / "bin"
    programs.mkdir()
    (programs / "apt-get").write_text(APT)
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("MADE", str(folder))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    make_debian(
        folder,
        "pkg-a",
        {"b.html": [SHARED, *prose("b", 5)], "a.html": prose("a", 5), "genindex.html": prose("x", 9)},
    )
    make_debian(folder, "pkg-b", {"c.html": [*prose("c", 5), SHARED, *prose("a", 2)], "d.txt": prose("d", 5)})
    (folder / "x_Translation-en").write_text(
        "\n\n".join(
            f"Package: p{k}\nDescription-en: title of it\n The package number {k} has a use for someone."
            for k in range(9)
        )
    )
    return folder


def texts(path, name):
    return [json.loads(line) for line in (path / "text" / f"{name}.jsonl").read_text().splitlines()]


def content(path):
    return {one.name: one.read_bytes() for one in sorted((path / "text").iterdir())}


def test_unique_paragraphs_with_their_source(made, tmp_path):
    found = build_corpus(tmp_path / "out", DEBIAN, lambda line: None)
    first, second = texts(tmp_path / "out", "first"), texts(tmp_path / "out", "second")
    assert [one["text"].split("\n\n") for one in first] == [prose("a", 5), [SHARED, *prose("b", 5)]]
    assert [one["text"].split("\n\n") for one in second] == [prose("c", 5)]
    assert {one["source"] for one in first} == {"first"} and set(first[0]) == {"text", "source"}
    entry = found.entries["first"]
    assert (entry["documents"], entry["paragraphs"], entry["package_version"]) == (2, 11, "1:2.0-1")
    assert entry["bytes"] == sum(len(one["text"].encode()) for one in first)
    page = (tmp_path / "out" / "corpus.md").read_text()
    assert "| first | pkg-a 1:2.0-1 | GPL-2+ | 2 |" in page and "Missing" not in page
    assert not list((tmp_path / "out").rglob("*.tmp")) and not list((tmp_path / "out").rglob(".*.unfinished"))


def test_short_units_are_joined_and_short_pages_left_out(made, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "JOINED", 150)
    make_debian(made, "pkg-c", {"short.html": prose("short", 1), "long.html": prose("long", 9)})
    monkeypatch.setattr(corpus, "LONG", 400)
    build_corpus(tmp_path / "out", [DESCRIPTIONS, TextSource("pages", "pkg-c", "MIT")], lambda line: None)
    joined = [one["text"].count("\n\n") + 1 for one in texts(tmp_path / "out", "descriptions")]
    assert joined == [4, 4]  # and one that stays below SHORT
    assert [one["text"].count("\n\n") + 1 for one in texts(tmp_path / "out", "pages")] == [6, 3]


def test_a_second_call_reads_nothing(made, tmp_path):
    build_corpus(tmp_path / "out", DEBIAN, lambda line: None)
    before, said = content(tmp_path / "out"), []
    shutil.rmtree(made)
    found = build_corpus(tmp_path / "out", DEBIAN, said.append)
    assert said == [] and content(tmp_path / "out") == before and not found.failures


@pytest.mark.parametrize("missing", ["pkg-a", "pkg-b"])
def test_a_missing_source_is_named_and_the_others_kept(made, tmp_path, missing):
    whole = tmp_path / "whole"
    build_corpus(whole, DEBIAN, lambda line: None)
    package = next(made.glob(f"{missing}_*.deb"))
    package.rename(tmp_path / package.name)
    found = build_corpus(tmp_path / "out", DEBIAN, lambda line: None)
    lost, kept = (("first", "second"), ("second", "first"))[missing == "pkg-b"]
    assert found.failures == {lost: f"E: Unable to locate package {missing}"}
    assert list(found.entries) == [kept] and len(content(tmp_path / "out")) == 1
    assert f"- {lost}: E: Unable to locate package {missing}" in (tmp_path / "out" / "corpus.md").read_text()
    (tmp_path / package.name).rename(package)
    assert not build_corpus(tmp_path / "out", DEBIAN, lambda line: None).failures
    assert content(tmp_path / "out") == content(whole)


def test_an_interruption_costs_one_source(made, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    build_corpus(whole, DEBIAN, lambda line: None)
    written = corpus._write_lines

    def interrupted(path, source, units):
        counts = written(path, source, units)
        if source.name == "second":
            raise KeyboardInterrupt
        return counts

    monkeypatch.setattr(corpus, "_write_lines", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "out", DEBIAN, lambda line: None)
    assert list(content(tmp_path / "out")) == ["first.jsonl"]
    monkeypatch.setattr(corpus, "_write_lines", written)
    said = []
    build_corpus(tmp_path / "out", DEBIAN, said.append)
    assert said == ["reading second"] and content(tmp_path / "out") == content(whole)


def test_other_code_reads_anew(made, tmp_path, monkeypatch):
    build_corpus(tmp_path / "out", DEBIAN, lambda line: None)
    monkeypatch.setattr(corpus, "code_digest", lambda: "other")
    said = []
    build_corpus(tmp_path / "out", DEBIAN, said.append)
    assert said == ["reading first", "reading second"]


def test_damaged_text_is_written_anew(made, tmp_path):
    out, said = tmp_path / "out", []
    build_corpus(out, DEBIAN, lambda line: None)
    before = content(out)
    (out / "text" / "first.jsonl").write_bytes(before["first.jsonl"].replace(b"length", b"lengtX"))
    build_corpus(out, DEBIAN, said.append)
    assert said == ["reading first"] and content(out) == before


def test_a_damaged_package_is_named(made, tmp_path):
    out = tmp_path / "out"
    build_corpus(out, DEBIAN, lambda line: None)
    package = next((out / "packages" / "pkg-b").glob("*.deb"))
    package.write_bytes(package.read_bytes()[:200])
    (out / "text" / "second.jsonl").unlink()
    found = build_corpus(out, DEBIAN, lambda line: None)
    assert list(found.failures) == ["second"] and "is damaged: remove its folder" in found.failures["second"]
    shutil.rmtree(out / "packages" / "pkg-b")
    assert not build_corpus(out, DEBIAN, lambda line: None).failures


def test_a_package_without_text_is_no_success(made, tmp_path):
    empty = TextSource("empty", "pkg-a", "MIT", files=("*.rst",))
    assert build_corpus(tmp_path / "out", [empty], print).failures == {"empty": "pkg-a has no text in *.rst"}


@pytest.mark.skipif(not INSTALLED_PIP, reason="wheels are fetched with pip, which is not installed")
def test_wheels_are_fetched_with_pip(made, tmp_path, monkeypatch):
    wheel = made / "made_api-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "made/api.json",
            json.dumps({"documentation": "".join(f"<p>{one}</p>" for one in prose("api", 9))}),
        )
        archive.writestr(
            "made_api-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-api\nVersion: 1.2\n"
        )
        archive.writestr(
            "made_api-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("made_api-1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made))
    found = build_corpus(tmp_path / "out", [WHEEL], lambda line: None)
    assert found.entries["api"]["package_version"] == "1.2" and not found.failures
    assert texts(tmp_path / "out", "api")[0]["text"].split("\n\n") == prose("api", 9)
    wheel.unlink()
    lost = build_corpus(tmp_path / "other", [WHEEL], lambda line: None)
    assert "made-api==1.2" in lost.failures["api"]


def test_clients_that_are_missing_or_too_slow(made, tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "SECONDS", 0.2)
    with pytest.raises(packages.SourceError, match=r"sleep took longer than 0\.2 s"):
        packages.run_client(["sleep", "5"], tmp_path)
    with pytest.raises(packages.SourceError, match="no-such-client is not installed"):
        packages.run_client(["no-such-client"], tmp_path)


def test_bad_folders_and_names(made, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="sources: got the names first, first, expected each once"):
        build_corpus(out, [DEBIAN[0]] * 2)
    (out / "text").mkdir(parents=True)
    (out / "text" / "mine.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"folder: .* holds mine\.jsonl, expected text of first, second"):
        build_corpus(out, DEBIAN)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        build_corpus(tmp_path / "file", DEBIAN)


def test_the_command(research, made, tmp_path, monkeypatch):
    monkeypatch.setattr("statemix_research.language.sources.SOURCES", tuple(DEBIAN))
    done = research("corpus out")
    assert done.code == 0 and "pkg-a 1:2.0-1" in done.out and "reading second" in done.err
    next(made.glob("pkg-b_*.deb")).unlink()
    done = research("corpus other")
    assert done.code == 1
    assert "1 sources are missing, the others are kept: second: E: Unable to locate package pkg-b" in done.err
    assert research("corpus third --only first").code == 0
    done = research("corpus fourth --only third")
    assert done.code == 2 and "--only: got 'third', expected one of first, second" in done.err


def test_the_page_is_a_table():
    found = corpus.Corpus(
        "x", {"a": {"package": "p", "package_version": "1", "licence": "MIT", "documents": 2000, "bytes": 5}}
    )
    assert "| a | p 1 | MIT | 2,000 | 5 |\n| all | | | 2,000 | 5 |" in describe(found)
