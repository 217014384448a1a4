"""lm-eval on a model of Statemix: two tasks made here, and what they say against numbers made by hand."""

from __future__ import annotations

import functools
import json
import math

import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra eval")
pytest.importorskip("statemix.hf", reason="needs the extra hf", exc_type=ImportError)

from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from statemix.hf import StatemixConfig, StatemixForCausalLM
from statemix.lm.harness import fast_tokenizer, harness_model, numbers, run_tasks
from statemix.packs import ByteTokenizer

END = ByteTokenizer.end_of_document

QUESTIONS = [
    {"question": "The state is", "choices": ["carried", "né", "lost"], "answer": 0},
    {"question": "Two and two:", "choices": ["five", "four"], "answer": 1},
    {"question": "漢字 are", "choices": ["characters", "numbers", "keys"], "answer": 0},
]

CHOICE = """
task: statemix_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {path}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""

TEXT = """
task: statemix_text
dataset_path: json
dataset_kwargs:
  data_files: {{test: {path}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list:
  - metric: bits_per_byte
"""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = StatemixConfig(vocab_size=257, hidden_size=16, num_hidden_layers=2)
    made = StatemixForCausalLM(config).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return made


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A folder with both tasks; data sets are cached beside it.

    These are all there are: a look through the thousands that lm-eval brings takes ten seconds.
    """
    monkeypatch.setattr("lm_eval.tasks.TaskManager", functools.partial(TaskManager, include_defaults=False))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    for name, text in (("choice", CHOICE), ("text", TEXT)):
        (tmp_path / f"{name}.yaml").write_text(text.format(path=path))
    return tmp_path


def log_likelihood(model, context, continuation):
    """ln p(continuation | context), by one forward of their bytes."""
    before, after = list(context.encode()) or [END], list(continuation.encode())
    with torch.no_grad():
        logits = model(torch.tensor([before + after[:-1]])).logits[0, len(before) - 1 :]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(after)[:, None]).sum())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_log_likelihoods_are_those_made_by_hand(model, batch_size):
    pairs = [("The state", " is né"), ("", "carried"), ("a longer context, 漢字", "!")]
    harness = harness_model(model, ByteTokenizer(), batch_size=batch_size)
    requests = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    found = [value for value, _ in harness.loglikelihood(requests, disable_tqdm=True)]
    assert found == pytest.approx([log_likelihood(model, *pair) for pair in pairs], rel=1e-5)


def test_a_text_that_is_too_long_keeps_its_end(model):
    harness = harness_model(model, ByteTokenizer(), length=8)
    requests = [Instance("loglikelihood", {}, ("far too long", "abc"), 0)]
    ((found, _),) = harness.loglikelihood(requests, disable_tqdm=True)
    assert found == pytest.approx(log_likelihood(model, "o long", "abc"), rel=1e-5)


def test_tasks_of_ones_own(model, tasks):
    harness = harness_model(model, ByteTokenizer())
    found = numbers(run_tasks(harness, ["statemix_choice", "statemix_text"], include=tasks))
    right, nats, size = 0, 0.0, 0
    for one in QUESTIONS:
        chances = [log_likelihood(model, one["question"], f" {choice}") for choice in one["choices"]]
        right += chances.index(max(chances)) == one["answer"]
        nats -= log_likelihood(model, "", one["question"])
        size += len(one["question"].encode())
    assert found["statemix_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
    assert found["statemix_text"]["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_greedy_text_is_that_of_generate(model):
    harness = harness_model(model, ByteTokenizer())
    request = Instance(
        "generate_until", {}, ("The state", {"max_gen_toks": 12, "until": [], "do_sample": False}), 0
    )
    (found,) = harness.generate_until([request], disable_tqdm=True)
    prompt = torch.tensor([list(b"The state")])
    tokens = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=END, pad_token_id=END)
    assert found == ByteTokenizer().decode([one for one in tokens[0, 9:].tolist() if one != END])


@pytest.mark.parametrize("text", ["né 漢字🙂", "<|endoftext|>", " two  spaces ", "it 's"])
def test_a_tokenizer_of_transformers_gives_the_same_ids(tmp_path, text):
    from statemix.packs import train_tokenizer
    from tests.packs.small import source

    for tokenizer in (ByteTokenizer(), train_tokenizer(source(), tmp_path / "tokenizer.json", 300)):
        fast = fast_tokenizer(tokenizer)
        ids = tokenizer.encode([text])[0][:-1].tolist()
        assert fast(text).input_ids == ids and fast.decode(ids) == text
        assert fast.eos_token_id == tokenizer.end_of_document


def test_bad_input(model, tasks):
    config = StatemixConfig(vocab_size=256, hidden_size=8, num_hidden_layers=1)
    with pytest.raises(ValueError, match="tokenizer: got one of 257 ids, expected at most 256"):
        harness_model(StatemixForCausalLM(config), ByteTokenizer())
    with pytest.raises(ValueError, match="length: got 0"):
        harness_model(model, ByteTokenizer(), length=0)
    harness = harness_model(model, ByteTokenizer())
    with pytest.raises(ValueError, match="tasks: got nothing_such, expected names"):
        run_tasks(harness, ["statemix_text", "nothing_such"], include=tasks)
