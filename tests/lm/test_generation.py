"""Generated text: tokens against whole forwards, characters against the tokenizer, and what ends a text."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from statemix.lm.generation import Rates, Sampling, generate
from statemix.lm.streaming import StopStrings, TextStream
from statemix.packs import ByteTokenizer
from tests.lm.trained import model

GREEDY = Sampling(temperature=0)


class Spelling:
    """A tokenizer of 257 ids: characters 0 to 255, so that a text shows its tokens. 256 ends a document."""

    vocab_size, end_of_document = 257, 256

    def decode(self, ids):
        return "".join(map(chr, ids))


def tokens_of(one, prompt, count, **options):
    text = "".join(generate(one, Spelling(), prompt, max_tokens=count, **options))
    return [ord(letter) for letter in text]


def greedy(one, prompt, count):
    """The likeliest token after a forward of everything before it, `count` times."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(one(torch.tensor([tokens]))[0][0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("prefill", [1, 7, 64, 2048])
def test_greedy_tokens_are_those_of_whole_forwards(prefill):
    one, prompt = model(), list(range(40, 107))
    wanted = greedy(one, prompt, 30)
    assert 256 not in wanted and len(set(wanted)) > 3
    assert tokens_of(one, prompt, 30, sampling=GREEDY, prefill=prefill) == wanted


@pytest.mark.parametrize("sampling", [Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(temperature=1e-9)])
def test_nothing_but_the_likeliest(sampling):
    one = model()
    assert tokens_of(one, [1, 2], 20, sampling=sampling) == greedy(one, [1, 2], 20)


def test_a_seed_gives_one_text():
    one = model()
    first, again, other = (tokens_of(one, [1], 40, sampling=Sampling(seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


LOGITS = torch.tensor([2.0, 0.0, 1.0, -1.0, -math.inf])
CHANCES = {
    Sampling(): LOGITS.softmax(0),
    Sampling(temperature=2.0): (LOGITS / 2).softmax(0),
    Sampling(top_k=2): torch.tensor([2.0, -math.inf, 1.0, -math.inf, -math.inf]).softmax(0),
    Sampling(top_p=0.7): torch.tensor([2.0, -math.inf, 1.0, -math.inf, -math.inf]).softmax(0),  # 0.64 + 0.24
    Sampling(top_k=3, top_p=0.75): torch.tensor([2.0, -math.inf, 1.0, -math.inf, -math.inf]).softmax(0),
    Sampling(top_p=1.0, top_k=9): LOGITS.softmax(0),
}


@pytest.mark.parametrize("sampling", CHANCES, ids=str)
def test_tokens_come_as_often_as_they_should(sampling):
    generator, count = sampling.generator(), 4000
    drawn = Counter(sampling.choose(LOGITS, generator) for _ in range(count))
    for token, chance in enumerate(CHANCES[sampling].tolist()):
        deviation = math.sqrt(count * chance * (1 - chance))
        assert abs(drawn[token] - count * chance) <= 4 * deviation, token


def test_ids_that_the_tokenizer_lacks_never_come():
    one = model(vocab_size=300)
    with torch.no_grad():
        one.head.bias.fill_(-1e4)
        one.head.bias[256:] = 1e4  # likely, and no ids of the tokenizer: 257 to 299
        one.head.bias[256] = -1e5
    assert len(tokens_of(one, [1], 20)) == 20


def test_the_end_of_a_document_ends_the_text():
    one = model()
    with torch.no_grad():
        one.head.bias[256] = 1e4
    rates = Rates()
    assert list(generate(one, ByteTokenizer(), "text", rates=rates)) == []
    assert (rates.prompt_tokens, rates.new_tokens) == (4, 1)


def test_text_comes_as_it_is_made():
    one, rates = model(), Rates()
    parts = generate(one, Spelling(), [1, 2, 3], max_tokens=10**6, sampling=GREEDY, rates=rates)
    next(parts)
    assert (rates.prompt_tokens, rates.new_tokens) == (3, 1)
    next(parts)
    assert rates.new_tokens == 2 and rates.seconds > 0 and rates.prompt_seconds > 0
    assert torch.is_grad_enabled()
    parts.close()


def test_the_model_trains_again():
    one = model(block={"dropout": 0.5}).train()
    assert tokens_of(one, [5], 12, sampling=GREEDY) == greedy(one.eval(), [5], 12)
    tokens_of(one.train(), [5], 3)
    assert one.training


def test_a_byte_prompt_is_its_bytes():
    one, text = model(), "né 漢"
    rates = Rates()
    parts = "".join(generate(one, ByteTokenizer(), text, max_tokens=9, sampling=GREEDY, rates=rates))
    assert rates.prompt_tokens == len(text.encode())
    assert parts == bytes(greedy(one, list(text.encode()), 9)).decode(errors="replace")


TEXTS = ["plain", "né ö", "漢字と🙂!", "a\ufffdb", "🙂" * 30, " leading", "tail 漢"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Bytes, and a BPE that has parts of characters as tokens."""
    pytest.importorskip("tokenizers")
    from statemix.packs import train_tokenizer
    from tests.packs.small import source

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return [ByteTokenizer(), train_tokenizer(source(), path, 300)]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(tokenizers, text):
    for tokenizer in tokenizers:
        stream, ids = TextStream(tokenizer), tokenizer.encode([text])[0][:-1].tolist()
        parts = [stream.add(one) for one in ids]
        assert "".join(parts) + stream.end() == text
        if "\ufffd" not in text:
            assert "".join(parts) == text  # at once, not at the end


@pytest.mark.parametrize("seed", range(20))
def test_any_tokens_give_what_the_tokenizer_gives(tokenizers, seed):
    draw = torch.Generator().manual_seed(seed)
    for tokenizer in tokenizers:
        ids = torch.randint(tokenizer.vocab_size, (60,), generator=draw).tolist()
        stream = TextStream(tokenizer)
        assert "".join([*map(stream.add, ids), stream.end()]) == tokenizer.decode(ids)


def test_half_a_character_waits():
    stream = TextStream(ByteTokenizer())
    assert [stream.add(one) for one in "a🙂".encode()] == ["a", "", "", "", "🙂"]
    assert (stream.add(0xE6), stream.add(0xBC), stream.end()) == ("", "", "\ufffd")


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_stop_strings(size):
    text = "one two three"
    for stops, wanted in (
        (["two"], "one "),
        (["xyz"], text),
        (["three", "o t"], "one tw"),
        ([], text),
        (["e"], "on"),
    ):
        found = StopStrings(stops)
        parts = []
        for k in range(0, len(text), size):
            parts.append(found.add(text[k : k + size]))
            if found.found:
                break
        whole = "".join(parts) + ("" if found.found else found.end())
        assert whole == wanted, stops
        assert found.found == (wanted != text)


def test_a_stop_string_ends_the_text():
    one = model()
    tokens = greedy(one, [5], 40)
    place = next(k for k in range(2, 40) if tokens[k : k + 2] not in [tokens[j : j + 2] for j in range(k)])
    stop = "".join(map(chr, tokens[place : place + 2]))
    assert tokens_of(one, [5], 40, sampling=GREEDY, stop=[stop]) == tokens[:place]


@pytest.mark.parametrize(
    ("prompt", "options", "words"),
    [
        ("", {}, "prompt: got no tokens, expected at least one"),
        ([], {}, "prompt: got no tokens"),
        ([3, 257], {}, "prompt: got the id 257, expected ids from 0 to 256"),
        ([-1], {}, "prompt: got the id -1"),
        ("a", {"max_tokens": 0}, "max_tokens: got 0"),
        ("a", {"prefill": 0}, "prefill: got 0"),
        ("a", {"stop": "ab"}, "stop: got 'ab', expected a list"),
        ("a", {"stop": [""]}, r"stop: got \[''\]"),
    ],
)
def test_bad_input_before_any_work(prompt, options, words):
    with pytest.raises(ValueError, match=words):
        generate(model(), ByteTokenizer(), prompt, **options)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1.0}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}],
)
def test_bad_sampling(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: got"):
        Sampling(**options)


def test_logits_that_are_not_finite():
    one = model()
    torch.nn.init.constant_(one.head.weight, math.nan)
    with pytest.raises(FloatingPointError, match="logits"):
        next(generate(one, ByteTokenizer(), "a"))
