"""Files of packages as text."""

from __future__ import annotations

import gzip
import json

import pytest
from statemix_research.language import readers
from statemix_research.language.corpus import is_text
from statemix_research.language.sources import SOURCES


def read(reader, data, path="a/file", **others):
    return list(readers.READERS[reader](data, path, others.__getitem__))


def test_html_is_paragraphs_without_navigation():
    page = (
        b"<html><head><title>T</title></head><body><nav><p>menu</p></nav>"
        b'<div class="side" role="navigation"><div>more <p>menu</p></div>menu</div>'
        b"<h1>Title\xc2\xb6</h1><p>One <b>bold</b>\n word<br>and &amp; more.</p><script>x()</script>"
        b"<ul><li>first<li>second</ul><pre>a\n  b\n\n    c</pre><table><tr><td>1</td><td>2</td></tr></table>tail"
    )
    assert read("html", page) == [
        ["Title", "One bold word and & more.", "first", "second", "a\n  b", "    c", "1 2", "tail"]
    ]


def test_hidden_elements_end_where_they_end():
    assert readers.html_paragraphs("<nav><nav>a</nav>b</nav>c<svg><p>d</p></svg><p>e</p>") == ["c", "e"]


def test_pod_has_no_commands_or_codes():
    page = b"=head1 NAME B<of I<x>>\n\nSee\nL<the list|perlop/x>, C<< a E<gt> b >> X<key>E<eacute>.\n\n"
    page += b"  code  x\n\n=cut\n"
    assert read("pod", page) == [["NAME of x", "See the list, a > b é.", "  code  x", ""]]


def index_number(number):
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = digits[number % 64]
    while number := number // 64:
        text = digits[number % 64] + text
    return text


def dictionary(*entries):
    """The bytes of a dictionary and of its index."""
    text, rows = b"", []
    for word, entry in entries:
        rows.append(f"{word}\t{index_number(len(text))}\t{index_number(len(entry.encode()))}")
        text += entry.encode()
    return gzip.compress(text), "\n".join(["00-database-info\tA\tB", *sorted(rows)]).encode()


def test_dictionary_entries_are_cut_by_the_index():
    long = "an animal of the sea " * 200
    data, index = dictionary(
        ("seal", f"seal\n   n 1: {long}\n   [1913 Webster]\n\n   2: {{stamp}}\n"),
        ("pinniped", "pinniped\n   n 1: a seal [syn:\n   {seal}, {x}]\n"),
        ("phoca", "phoca\n   n 1: a seal\n"),
    )
    assert read("dictionary", data, "d/x.dict.dz", **{"d/x.index": index}) == [
        [f"seal n 1: {long.strip()}", "2: stamp"],
        ["pinniped n 1: a seal"],
    ]


def test_sayings_are_parted_by_percent_signs():
    assert read("sayings", b"One.\n\t-- A\n%\nTwo,\n\nthree.\n%\n") == [
        ["One.\n        -- A"],
        ["Two,", "three."],
        [],
    ]


def test_descriptions_of_packages():
    records = (
        "Package: one\nDescription-md5: 1\nDescription-en: The title\n First line\n second line.\n .\n Holds:\n"
        "  * this\n  * that\n\nPackage: two\nDescription-en: Only a title\n\nPackage: three\nDescription-de: Nein\n"
    )
    assert read("descriptions", records.encode()) == [
        ["one: The title", "First line second line.", "Holds:\n* this\n* that"],
        ["two: Only a title"],
    ]


def test_interfaces_give_their_documentation():
    service = {
        "documentation": "<p>All of it.</p><p>More.</p>",
        "shapes": {
            "description": {"documentation": "A shape", "type": "x"},
            "list": [{"description": "Listed"}],
        },
        "enumDescriptions": ["First value", "Second value"],
    }
    expected = [["All of it.", "More."], ["First value"], ["Second value"], ["A shape"], ["Listed"]]
    assert read("interface", json.dumps(service).encode()) == expected
    assert read("interface", gzip.compress(json.dumps(service).encode())) == expected


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("The function returns the number of bytes.", True),
        ("Too short a one", False),
        ("if (x->y[i] != 0) { z += f(x, &y[2]); } /* 12 */", False),
        ("0.1 2.5 3.7 4.1 5.9 6.4 seven", False),
        ("Internationalisation_of_documentation", False),
    ],
)
def test_what_counts_as_text(paragraph, expected):
    assert is_text(paragraph) is expected


def test_sources_are_data():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert {source.reader for source in SOURCES} == set(readers.READERS)
    assert all(source.licence and source.files for source in SOURCES)
