"""The whole way from a hub to a pack, over HTTP: only the server stands on this machine."""

from __future__ import annotations

import json

import pytest

from statemix.packs import Pack
from tests.packs.hub import COMMIT, Hub
from tests.packs.small import contents, python, texts
from tests.packs.test_sources import fineweb_folder

PREPARE = """
import sys
from statemix.cli import main
sys.argv = ["statemix", "text", "prepare", "--shard-tokens", "20000", "--source", "fineweb", "--out", *sys.argv[1:]]
raise SystemExit(main())
"""


@pytest.fixture
def hub(tmp_path):
    pytest.importorskip("datasets")
    with Hub(fineweb_folder(tmp_path / "hub", files=10)) as hub:
        yield hub


@pytest.fixture
def prepare(hub, tmp_path):
    home = str(tmp_path / "home")
    return lambda *words: python(PREPARE, *words, HF_ENDPOINT=hub.url, HF_HOME=home, COLUMNS="200")


def check_whole(folder):
    """All documents of the hub are in the pack, which names the commit."""
    pack, held_out = Pack(folder, verify=True), Pack(folder, "validation")
    every = [split.text(k) for split in (pack, held_out) for k in range(len(split))]
    assert sorted(every) == sorted(texts(2000))
    assert pack.meta["recipe"]["source"] == {
        "data_set": "HuggingFaceFW/fineweb", "subset": "sample-10BT", "revision": COMMIT, "column": "text",
    }  # fmt: skip


@pytest.mark.slow
def test_files_of_a_hub_that_go_away_and_come_back(prepare, hub, tmp_path):
    """What was prepared stays; the same command goes on where it stopped, and reads nothing before that."""
    done = prepare(tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"preparing fineweb in {tmp_path / 'whole'}\n"
    check_whole(tmp_path / "whole")
    assert not [name for name in hub.requests if name.startswith("data/")]
    hub.gone = {"sample/10BT/009_00000.parquet"}
    done = prepare(tmp_path / "pack")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[1:]
    assert line.startswith("error: cannot read fineweb (data set HuggingFaceFW/fineweb): ")
    there = json.loads((tmp_path / "pack" / "unfinished.json").read_text())
    assert there["count"] >= 1
    hub.gone, hub.requests = set(), []
    done = prepare(tmp_path / "pack")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "pack") == contents(tmp_path / "whole")
    assert not {f"sample/10BT/{k:03}_00000.parquet" for k in (1, 2)} & set(hub.requests)
    assert "sample/10BT/009_00000.parquet" in hub.requests
