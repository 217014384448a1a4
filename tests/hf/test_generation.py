"""`generate`: greedy, sampled, beams, chunked prefill, continued texts, padding, streams; every way to decode."""

from __future__ import annotations

import pytest
import torch
from transformers import TextStreamer, set_seed

from statemix.hf import StatemixCache
from statemix.hf.modeling import CACHE
from tests.hf.small import MODELS, RECURRENT, build, config, greedy, tokens

GREEDY = {"do_sample": False, "max_new_tokens": 6}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", [1, 7])
def test_greedy_equals_a_forward_a_token(name, length):
    model, prompt = build(name), tokens(2, length)
    assert torch.equal(model.generate(prompt, **GREEDY), greedy(model, prompt, 6))


@pytest.mark.parametrize("name", MODELS)
def test_greedy_without_a_cache(name):
    model, prompt = build(name), tokens(2, 5)
    assert torch.equal(model.generate(prompt, use_cache=False, **GREEDY), model.generate(prompt, **GREEDY))


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_is_a_statemix_cache(name):
    model = build(name)
    output = model.generate(tokens(2, 5), return_dict_in_generate=True, **GREEDY)
    assert type(output[CACHE]) is StatemixCache and output[CACHE].get_seq_length() == 10


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 3, 4, 20])
def test_chunked_prefill(name, chunk):
    model, prompt = build(name), tokens(2, 9)
    assert torch.equal(
        model.generate(prompt, prefill_chunk_size=chunk, **GREEDY), model.generate(prompt, **GREEDY)
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_left_padding(name, chunk):
    """Every row goes on as it does alone, in chunks that are padding as well."""
    model, rows, mask = build(name), tokens(3, 7), torch.ones(3, 7, dtype=torch.long)
    mask[1, :4], mask[2, :1] = 0, 0
    together = model.generate(rows, attention_mask=mask, prefill_chunk_size=chunk, **GREEDY)
    for row in range(3):
        alone = model.generate(rows[row : row + 1, mask[row] == 1], **GREEDY)
        assert torch.equal(together[row, 7:], alone[0, -6:])


@pytest.mark.parametrize("name", MODELS)
def test_sampled(name):
    """With one seed the cache draws what a forward a token draws."""
    model, prompt, drawn = build(name), tokens(2, 5), []
    for use_cache in (True, False):
        set_seed(3)
        drawn.append(model.generate(prompt, do_sample=True, top_k=20, max_new_tokens=8, use_cache=use_cache))
    assert torch.equal(*drawn)
    set_seed(4)
    other = model.generate(prompt, do_sample=True, top_k=20, max_new_tokens=8)
    assert not torch.equal(other, drawn[0])
    several = model.generate(prompt, do_sample=True, num_return_sequences=3, max_new_tokens=2)
    assert several.shape == (6, 7)


@pytest.mark.parametrize("name", MODELS)
def test_beams(name):
    """Beams change places, and the states with them."""
    model, prompt = build(name), tokens(2, 5)
    options = {"num_beams": 4, "num_return_sequences": 2, "do_sample": False, "max_new_tokens": 8}
    cached = model.generate(prompt, **options)
    assert torch.equal(cached, model.generate(prompt, use_cache=False, **options))
    assert not torch.equal(cached[::2], model.generate(prompt, do_sample=False, max_new_tokens=8))


@pytest.mark.parametrize("name", MODELS)
def test_a_text_is_continued(name):
    """With the cache of the text so far: the tokens of the whole text, or the new ones alone."""
    model, prompt = build(name), tokens(2, 5)
    whole = model.generate(prompt, do_sample=False, max_new_tokens=8)
    for key in ("cache", "past_key_values"):
        cache = StatemixCache(model.config)
        first = model.generate(prompt, do_sample=False, max_new_tokens=3, **{key: cache})
        assert cache.get_seq_length() == 7  # the last token has not been read yet
        second = model.generate(first, do_sample=False, max_new_tokens=5, **{key: cache})
        assert torch.equal(second, whole)
    with pytest.raises(ValueError, match="cache, past_key_values: got both"):
        model.generate(prompt, cache=cache, past_key_values=cache)


@pytest.mark.parametrize("name", MODELS)
def test_from_embeddings(name):
    model, prompt = build(name), tokens(2, 5)
    embedded = model.get_input_embeddings()(prompt)
    new = model.generate(inputs_embeds=embedded, **GREEDY)
    assert torch.equal(new, model.generate(prompt, **GREEDY)[:, 5:])


@pytest.mark.parametrize("name", MODELS)
def test_what_generate_returns(name):
    model, prompt = build(name, attn_implementation="eager"), tokens(2, 5)
    output = model.generate(
        prompt, output_scores=True, output_logits=True, output_hidden_states=True, output_attentions=True,
        return_dict_in_generate=True, **GREEDY,
    )  # fmt: skip
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == 6
    assert [len(one) for one in output.hidden_states] == [3] * 6
    assert [one[-1].shape for one in output.hidden_states] == [(2, 5, 32), *[(2, 1, 32)] * 5]
    assert len(output.attentions[0]) == (name == "hybrid")
    with torch.no_grad():
        whole = model(output.sequences[:, :-1]).logits[:, 4:]
    torch.testing.assert_close(torch.stack(output.logits, 1), whole, rtol=1e-4, atol=1e-5)


def test_the_end_of_a_text():
    model, prompt = build(), tokens(3, 4)
    free = model.generate(prompt, do_sample=False, max_new_tokens=10)
    end = int(free[0, 6])
    ended = model.generate(prompt, do_sample=False, max_new_tokens=10, eos_token_id=end, pad_token_id=0)
    stop = free[0].tolist().index(end, 4)
    assert torch.equal(ended[0, : stop + 1], free[0, : stop + 1]) and not ended[0, stop + 1 :].any()


def test_streaming():
    class Tokenizer:
        def decode(self, ids, **options):
            return "".join(f"<{int(one)}>" for one in ids)

    class Streamer(TextStreamer):
        text = ""

        def on_finalized_text(self, text, stream_end=False):
            self.text += text

    model, prompt = build(), tokens(1, 4)
    streamer = Streamer(Tokenizer(), skip_prompt=True)
    new = model.generate(prompt, streamer=streamer, **GREEDY)[0, 4:]
    assert streamer.text.strip() == "".join(f"<{int(one)}>" for one in new)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["bdlru", "hybrid"])
def test_a_pipeline(name):
    """transformers' pipeline pads a batch of texts on the left; each goes on as it does alone."""
    pytest.importorskip("tokenizers", reason="needs tokenizers (extra text)")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast, pipeline

    from statemix.packs import ByteTokenizer

    plain = ByteTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(plain.content.decode()), eos_token=plain.end_token,
        pad_token=plain.end_token, padding_side="left",
    )  # fmt: skip
    run = pipeline("text-generation", model=build(name, vocab_size=257), tokenizer=tokenizer)
    options = {"do_sample": False, "max_new_tokens": 6, "return_full_text": False}
    texts = ["a", "a longer text", "text"]
    together = run(texts, batch_size=3, **options)
    assert together == [run(text, **options) for text in texts]


def test_the_state_does_not_grow():
    """The bytes of the cache after one token and after three hundred."""
    model = build("block")
    sizes = {
        length: model.generate(
            tokens(2, 4), do_sample=False, max_new_tokens=length, return_dict_in_generate=True
        )[CACHE].nbytes
        for length in (2, 300)
    }
    assert sizes[2] == sizes[300] > 0


def test_bad_requests():
    model = build()
    with pytest.raises(ValueError, match="cache_implementation: got 'static', expected None"):
        model.generate(tokens(1, 3), cache_implementation="static", **GREEDY)
    with pytest.raises(
        ValueError, match="decode: got 'fast', expected one of 'auto', 'plain', 'graph', 'compiled'"
    ):
        model.generate(tokens(1, 3), decode="fast", **GREEDY)
    with pytest.raises(
        ValueError, match="decode: got 'compiled', which does not work here: the keys and values"
    ):
        build("hybrid").generate(tokens(1, 3), decode="compiled", **GREEDY)
    with pytest.raises(ValueError, match="assisted generation is not supported"):
        model.generate(tokens(1, 3), assistant_model=build(), **GREEDY)
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match="decode: got 'graph', which does not work here: on a 'cpu' device"
        ):
            model.generate(tokens(1, 3), decode="graph", **GREEDY)
    cache = StatemixCache(config())
    model.generate(tokens(1, 3), cache=cache, **GREEDY)
    with pytest.raises(ValueError, match="cache: got a batch of 1, expected 2 sequences"):
        model.generate(tokens(2, 12), cache=cache, **GREEDY)


def test_recurrent_models_are_told_from_hybrids():
    assert sorted(MODELS) == sorted([*RECURRENT, "hybrid"])
