"""Stores and exported files that are damaged, or hold names and errors that a terminal or a page would obey."""

from __future__ import annotations

import json
import shutil

from statemix_research.sweeps import Store

from research.tests.sweeps.helpers import QUICK

EVIL = "\x1b[31mred\x1b[0m \x07|a|`b`[c](http://d)<script>e</script>[bold]f[/]\u2028g\x85h\x0bi\nj"


def test_a_damaged_run_is_told_of(research, victim, plan):
    (victim / "summary.json").write_text("{}")
    line = ["fig3", *QUICK, "--preset", "small", "--store", str(victim.parent)]
    ran = research(["run", *line, "--workers", "1"])
    assert ran.code == 1
    assert f"damaged: {victim}: {victim}/summary.json" in ran.out
    assert f"{len(plan.cells) - 1} finished, 1 damaged" in ran.out
    assert "remove a run's folder" in ran.err
    shown = research(["show", *line])
    assert (shown.code, shown.err) == (0, "")
    assert f"- Damaged: {victim.name}" in shown.out
    exported = research(["export", *line, "--out", "x.jsonl"])
    assert exported.code == 0
    assert f"damaged, left out: {victim.parent}: {victim.name}/summary.json" in exported.err


def test_errors_are_text_on_a_page_and_on_a_terminal(research, victim, tmp_path):
    shutil.rmtree(victim)
    Store(victim.parent).note(victim.name, "failed", error=EVIL, traceback=EVIL)
    line = ["fig3", *QUICK, "--preset", "small"]
    exported = research(["export", *line, "--store", "s", "--out", "x.jsonl"])
    assert exported.code == 0
    rows = [json.loads(text) for text in (tmp_path / "x.jsonl").read_bytes().split(b"\n")[1:-1]]
    assert [row["error"] for row in rows if row["status"] == "failed"] == [EVIL]
    settings = [word for setting in QUICK for word in ("--setting", setting)]
    (tmp_path / "x").mkdir()
    shutil.copy(tmp_path / "x.jsonl", tmp_path / "x" / "fig3.jsonl")
    for source, folder, given in (("s", "s", settings), ("x.jsonl", "x", [])):
        shown = research(["show", *line, "--store", source])
        assert shown.code == 0, shown.err
        made = research(["paper", "fig3", *given, "--preset", "small", "--store", folder, "--out", "pages"])
        assert made.code == 0, made.err
        for text in (shown.out, (tmp_path / "pages" / "fig3.md").read_bytes().decode()):
            (told,) = (one for one in text.split("\n") if one.startswith("- Failed: "))
            assert told.endswith(
                r": \\x1b\[31mred\\x1b\[0m \\x07\|a\|\`b\`\[c](http://d)&lt;script&gt;e&lt;/script&gt;"
                r"\[bold]f\[/]\\u2028g\\x85h\\x0bi\\nj."
            )
            assert not set(text) & set("\x1b\x07\u2028\x85\x0b")
    imported = research(["import", "x.jsonl", "--store", "t"])
    assert imported.code == 0, imported.err


def test_names_in_an_exported_file_are_text(research, victim, tmp_path):
    assert research(["export", "fig3", *QUICK, "--store", "s", "--out", "x.jsonl"]).code == 0
    head, *rows = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    evil = "$\\x<!-- end of fig3 -->" + EVIL
    head |= {"settings": [evil], "skipped": [[evil, evil]]}
    rows = [{**row, "model": evil, "hardware": evil, "torch": evil} for row in rows[:1]]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (head, *rows)))
    text = research("show fig3 --store x.jsonl").out
    assert not set(text) & set("\x1b\x07\u2028\x85\x0b")
    assert {line.split(" fig3 ")[0] for line in text.split("\n") if "<script>" in line} == {
        "    statemix-research run", "    statemix-research paper"
    }  # fmt: skip
    tables = [line for line in text.split("\n") if line.startswith("|")]
    assert any("script" in line for line in tables)
    assert all("`b`" not in line and "|a|" not in line for line in tables)
