"""`statemix lm eval` and `statemix lm generate`."""

from __future__ import annotations

import io
import json
import math
import re
import sys

import pytest

pytest.importorskip("numpy")
pytest.importorskip("filelock")
pytest.importorskip("safetensors")

from statemix.lm import Sampling, evaluate, generate, load_model
from tests.lm.conftest import held_out, pack, trained  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_evaluate_prints_and_writes(statemix, trained, held_out):  # noqa: F811
    done = statemix(["lm", "eval", str(trained)])
    result = evaluate(load_model(trained).model, held_out, length=64)
    assert done.code == 0, done.err
    assert f"{result.loss:.4f}" in done.out and f"{result.bits_per_byte:.4f}" in done.out
    bits = [f"{one.loss / math.log(2):.3f}" for one in result.by_context]
    assert re.findall(r"([\d.]+) │$", done.out.partition("by context")[2], re.MULTILINE) == bits
    assert "32–63" in done.out and f"evaluation: {trained}/evaluation.json" in done.out
    content = json.loads((trained / "evaluation.json").read_text())
    assert content["loss"] == pytest.approx(result.loss)
    assert (content["split"], content["length"], content["cut"]) == ("validation", 64, "sequences")
    assert content["tokenizer"] == held_out.meta["recipe"]["tokenizer"]["sha256"]
    assert len(content["by_context"]) == len(result.by_context)


def test_evaluate_with_options(statemix, trained, held_out, tmp_path):  # noqa: F811
    options = (
        "--cut documents --length 32 --carry-state --max-tokens 500 --batch-size 3 --split train --device cpu"
    )
    line = [
        "lm",
        "eval",
        str(trained),
        "--pack",
        str(held_out.folder),
        *options.split(),
        "--json",
        "deep/numbers.json",
    ]
    done = statemix(line)
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "deep" / "numbers.json").read_text())
    assert (content["cut"], content["length"], content["carry_state"]) == ("documents", 32, True)
    assert content["split"] == "train" and 500 <= content["tokens"] < 1000
    assert not (trained / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("lm eval missing", 2, "error: missing does not exist: expected the folder of a run"),
        ("lm eval RUN --length 0", 2, "error: length: got 0, expected a whole number of at least 1"),
        ("lm eval RUN --cut words", 2, "error: cut: got 'words'"),
        ("lm eval RUN --pack RUN", 2, "is not a pack"),
        ("lm eval RUN --split test", 2, "error: split: got 'test'"),
        ("lm eval RUN --tokenizer nothing.json", 2, "nothing.json"),
        ("lm eval RUN --device cuda:99", 2, "error: device: got 'cuda:99', which cannot be used here"),
        ("lm generate RUN", 2, "error: prompt: got neither of --prompt and --prompt-file, expected one"),
        ("lm generate RUN --prompt a --prompt-file b", 2, "error: prompt: got both"),
        ("lm generate RUN --prompt ''", 2, "error: prompt: got no tokens, expected at least one"),
        ("lm generate RUN --prompt-file nothing", 2, "error: nothing: No such file or directory"),
        ("lm generate RUN --prompt a --top-p 2", 2, "error: top_p: got 2.0"),
        ("lm generate missing --prompt a", 2, "error: missing does not exist"),
    ],
)
def test_bad_input(statemix, trained, line, code, words):  # noqa: F811
    before = sorted(path.name for path in trained.iterdir())
    done = statemix(line.replace("RUN", str(trained)))
    assert done.code == code, done.err
    assert words in done.err and "Traceback" not in done.err
    assert done.out == ""
    assert sorted(path.name for path in trained.iterdir()) == before


def test_generate_streams_what_the_function_gives(statemix, trained):  # noqa: F811
    options = "--max-tokens 20 --temperature 0.7 --top-k 50 --top-p 0.9 --seed 3"
    done = statemix(["lm", "generate", str(trained), "--prompt", "The né", *options.split()])
    sampling = Sampling(temperature=0.7, top_k=50, top_p=0.9, seed=3)
    loaded = load_model(trained)
    text = "".join(generate(loaded.model, loaded.tokenizer, "The né", max_tokens=20, sampling=sampling))
    assert done.code == 0, done.err
    assert done.out.startswith("The né") and done.out.endswith("\n")
    if text.isprintable():
        assert done.out == f"The né{text}\n"
    assert "prompt: 7 tokens" in done.err and "a second" in done.err


def test_a_prompt_from_a_file_and_from_standard_input(statemix, trained, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "prompt.txt").write_text("two\nlines")
    options = ["--max-tokens", "5", "--temperature", "0"]
    from_file = statemix(["lm", "generate", str(trained), "--prompt-file", "prompt.txt", *options])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"two\nlines")))
    from_pipe = statemix(["lm", "generate", str(trained), "--prompt-file", "-", *options])
    assert from_file.code == from_pipe.code == 0, from_file.err
    assert from_file.out == from_pipe.out and from_file.out.startswith("two\nlines")
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    done = statemix(["lm", "generate", str(trained), "--prompt-file", "bad.txt"])
    assert done.code == 2 and "bad.txt is not UTF-8 at byte 2" in done.err


def test_control_characters_do_not_reach_the_terminal(statemix, trained):  # noqa: F811
    done = statemix(["lm", "generate", str(trained), "--prompt", "a\x1b[31m", "--max-tokens", "1"])
    assert done.code == 0 and "\x1b" not in done.out and "a\\x1b[31m" in done.out


@pytest.mark.slow
def test_tasks_of_lm_eval(statemix, trained, tmp_path, monkeypatch):  # noqa: F811
    pytest.importorskip("lm_eval", reason="needs the extra eval")
    pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)
    from tests.hf.test_harness import QUESTIONS, TEXT

    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    (tmp_path / "tasks" / "text.yaml").write_text(TEXT.format(path=tmp_path / "questions.jsonl"))
    done = statemix(["lm", "eval", str(trained), "--tasks", "statemix_text", "--include", "tasks"])
    assert done.code == 0, done.err
    assert "statemix_text" in done.out and "bits_per_byte" in done.out
    content = json.loads((trained / "evaluation.json").read_text())
    assert content["tasks"]["statemix_text"]["bits_per_byte,none"] > 0
    done = statemix(["lm", "eval", str(trained), "--tasks", "nothing_such"])
    assert done.code == 2 and "tasks: got nothing_such" in done.err
