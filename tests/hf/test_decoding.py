"""Captured steps give what the plain way gives, and leave the cache and the model as they were."""

from __future__ import annotations

import functools
import threading
import warnings

import pytest
import torch

from statemix.hf import DECODERS, StatemixCache, decoding
from statemix.hf.modeling import CACHE
from tests.hf.small import MODELS, RECURRENT, build, greedy, tokens
from tests.ops.cases import relative

GREEDY = {"do_sample": False, "max_new_tokens": 8}


class EagerStep(decoding.CapturedStep):
    """What is captured, without a compiler or a GPU: the same tensors in the same places."""

    calls = 0

    def __call__(self, model, tokens):
        type(self).calls += 1
        self.tokens.copy_(tokens)
        return self.run(model, self.tokens, self.states)


@pytest.fixture
def eager(monkeypatch):
    """`decode="graph"` on the CPU."""
    monkeypatch.setitem(decoding.STEPS, ("graph", "cpu"), EagerStep)
    monkeypatch.setattr(EagerStep, "calls", 0)
    return EagerStep


@pytest.mark.parametrize("name", RECURRENT)
def test_replayed_tokens(name, eager):
    model, prompt = build(name), tokens(2, 5)
    assert torch.equal(model.generate(prompt, decode="graph", **GREEDY), greedy(model, prompt, 8))
    assert eager.calls == 7  # the first new token comes from the prompt


@pytest.mark.parametrize("name", RECURRENT)
def test_replayed_beams(name, eager):
    model, prompt = build(name), tokens(2, 5)
    options = {"num_beams": 4, "num_return_sequences": 2, "do_sample": False, "max_new_tokens": 8}
    expected = model.generate(prompt, use_cache=False, **options)
    assert torch.equal(model.generate(prompt, decode="graph", **options), expected)
    assert eager.calls == 7


@pytest.mark.parametrize("name", RECURRENT)
def test_replayed_behind_padding(name, eager):
    model, rows, mask = build(name), tokens(3, 6), torch.ones(3, 6, dtype=torch.long)
    mask[1, :4] = 0
    plain = model.generate(rows, attention_mask=mask, decode="plain", **GREEDY)
    assert torch.equal(model.generate(rows, attention_mask=mask, decode="graph", **GREEDY), plain)
    assert eager.calls == 7


def test_the_cache_owns_its_state_afterwards(eager):
    """A second text does not change the cache of the first, which goes on as if nothing had been captured."""
    model, text = build("block"), tokens(2, 5)
    cache = StatemixCache(model.config)
    first = model.generate(text, cache=cache, decode="graph", **GREEDY)
    assert cache.replay is None and cache.get_seq_length() == 12
    kept = cache.snapshot()
    model.generate(tokens(2, 7, seed=1), decode="graph", **GREEDY)
    assert all(torch.equal(kept[name], now) for name, now in cache.snapshot().items())
    second = model.generate(first, cache=cache, decode="graph", do_sample=False, max_new_tokens=4)
    assert torch.equal(second, greedy(model, text, 12))


def test_what_was_captured_serves_the_next_text(eager, monkeypatch):
    made = []
    start = EagerStep.__init__
    monkeypatch.setattr(EagerStep, "__init__", lambda self, *rest: made.append(1) or start(self, *rest))
    model = build()
    for rows, captures in ((2, 1), (2, 1), (3, 2), (3, 2)):
        model.generate(tokens(rows, 4), decode="graph", **GREEDY)
        assert len(made) == captures
    with torch.no_grad():  # in place: a replay reads the new numbers
        model.lm_head.weight.mul_(-1)
    assert torch.equal(model.generate(tokens(3, 4), decode="graph", **GREEDY), greedy(model, tokens(3, 4), 8))
    assert len(made) == 2
    model.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight)  # elsewhere: it is captured anew
    assert torch.equal(model.generate(tokens(3, 4), decode="graph", **GREEDY), greedy(model, tokens(3, 4), 8))
    assert len(made) == 3


def test_modes_do_not_share_a_step(eager):
    """Inference mode, autocast and neither, one after another; the cache is usable everywhere afterwards."""
    model, text = build("block"), tokens(2, 4)
    expected = greedy(model, text, 8)
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            assert torch.equal(model.generate(text, decode="graph", **GREEDY), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.generate(text, decode="graph", **GREEDY)
        assert torch.equal(rounded, model.generate(text, decode="plain", **GREEDY))
    assert torch.equal(model.generate(text, decode="graph", **GREEDY), expected)


def test_hooks_and_adapters_are_captured_for_every_text(eager):
    """Nothing tells when they change."""
    peft = pytest.importorskip("peft", reason="needs peft (extra dev)")
    settings = peft.LoraConfig(r=2, target_modules=["gates", "values"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(build(), settings).eval()
    text = tokens(2, 4)
    adapted = model.generate(text, decode="graph", **GREEDY)
    with model.disable_adapter():
        plain = model.generate(text, decode="graph", **GREEDY)
        assert torch.equal(plain, greedy(model, text, 8))
    assert torch.equal(adapted, greedy(model, text, 8)) and not torch.equal(adapted, plain)
    assert model.base_model.model not in decoding._KEPT


def test_recorded_layers_take_the_plain_way(eager):
    output = build().generate(
        tokens(1, 4), decode="graph", output_hidden_states=True, return_dict_in_generate=True, **GREEDY
    )
    assert len(output.hidden_states[-1]) == 3 and eager.calls == 0


def test_a_forward_of_ones_own_is_never_replayed(eager):
    model = build()
    output = model.generate(tokens(1, 4), decode="graph", return_dict_in_generate=True, **GREEDY)
    calls = eager.calls
    with torch.no_grad():
        model(tokens(1, 1), cache=output[CACHE])
    assert eager.calls == calls > 0


def test_threads_do_not_share_a_step(eager):
    model, results = build(), {}

    def run(seed):
        results[seed] = model.generate(
            tokens(2, 5, seed=seed), decode="graph", do_sample=False, max_new_tokens=40
        )

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert torch.equal(results[seed], greedy(model, tokens(2, 5, seed=seed), 40))


def test_an_error_leaves_nothing_behind(eager):
    model, cache = build(), StatemixCache(build().config)

    def stop(ids, scores, **rest):
        if ids.shape[1] > 7:
            raise RuntimeError("stopped")
        return False

    with pytest.raises(RuntimeError, match="stopped"):
        model.generate(tokens(1, 4), cache=cache, decode="graph", stopping_criteria=[stop], **GREEDY)
    assert cache.replay is None and decoding._CURRENT.get() is None
    assert torch.equal(model.generate(tokens(1, 4), **GREEDY), greedy(model, tokens(1, 4), 8))


@pytest.mark.parametrize("decode", ["auto", "graph"])
def test_a_step_that_cannot_be_captured(decode, monkeypatch):
    """ "auto" says so and takes the plain way; a way that was named raises."""

    class Failing(EagerStep):
        def __init__(self, *rest):
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setitem(decoding.STEPS, ("graph", "cpu"), Failing)
    model, prompt = build(), tokens(1, 4)
    if decode == "auto":
        with pytest.warns(RuntimeWarning, match="the step cannot be captured .*operation not permitted"):
            assert torch.equal(model.generate(prompt, **GREEDY), greedy(model, prompt, 8))
    else:
        with pytest.raises(RuntimeError, match="operation not permitted"):
            model.generate(prompt, decode=decode, **GREEDY)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled(backend, monkeypatch):
    """Inductor rounds otherwise: the logits are close, and equal where a token is clear."""
    model, prompt, compiled_by = build("block"), tokens(2, 5), []
    plain_compile = torch.compile

    def compile_(*arguments, **options):
        compiled_by.append(backend)
        return plain_compile(*arguments, **options, backend=backend)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(decoding, "_compiled", functools.cache(decoding._compiled.__wrapped__))
    options = {"output_logits": True, "return_dict_in_generate": True, **GREEDY}
    plain, compiled = (model.generate(prompt, decode=way, **options) for way in ("plain", "compiled"))
    assert torch.equal(plain.sequences, compiled.sequences)
    torch.testing.assert_close(torch.stack(compiled.logits), torch.stack(plain.logits), rtol=1e-4, atol=1e-4)
    again = model.generate(tokens(2, 9, seed=1), decode="compiled", **GREEDY)
    assert torch.equal(again, greedy(model, tokens(2, 9, seed=1), 8))
    assert compiled_by


@pytest.mark.gpu
@pytest.mark.parametrize("decode", [way for way in DECODERS if way != "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RECURRENT)
def test_graphs_on_a_gpu(name, dtype, decode):
    """The logits of 64 replayed steps are those of the plain way on the same tokens, for two batches and two texts.

    A compiled step rounds bfloat16 otherwise, which changes what an untrained hard row selects: rows are soft there."""
    soft = {}
    if name == "start" and decode == "compiled" and dtype == torch.bfloat16:
        soft = {"mixer_arguments": MODELS[name]["mixer_arguments"] | {"hard": False}}
    model = build(name, hidden_size=128, **soft).to("cuda", dtype)
    for rows in (1, 3):
        for seed in (0, 1):
            prompt = tokens(rows, 9, seed=seed).cuda()
            output = model.generate(
                prompt, decode=decode, do_sample=False, max_new_tokens=64, output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
            cache = StatemixCache(model.config)
            with torch.no_grad():
                logits = [model(prompt, cache=cache, logits_to_keep=1).logits[:, -1]]
                logits += [
                    model(token, cache=cache).logits[:, -1]
                    for token in output.sequences[:, 9:-1].split(1, dim=1)
                ]
            near = 1e-4 if dtype == torch.float32 else 0.02
            assert relative(torch.stack(output.logits), torch.stack(logits)) < near
            if decode == "graph":  # the same kernels
                assert torch.equal(torch.stack(output.logits), torch.stack(logits).float())


@pytest.mark.gpu
def test_beams_and_sampling_on_a_gpu():
    model, prompt = build("block").cuda(), tokens(2, 5).cuda()
    for options in ({"num_beams": 4, "do_sample": False}, {"do_sample": True}):
        made = []
        for decode in ("plain", "graph"):
            torch.manual_seed(0)
            made.append(model.generate(prompt, decode=decode, max_new_tokens=20, **options))
        assert torch.equal(*made)


@pytest.mark.gpu
def test_auto_takes_the_graph_on_a_gpu():
    model = build().cuda()
    model.generate(tokens(2, 5).cuda(), **GREEDY)
    assert isinstance(decoding._KEPT[model][1], decoding.GraphStep)


@pytest.mark.gpu
def test_memory_does_not_grow_on_a_gpu():
    """As much memory behind 2 000 tokens as behind 50: nothing is kept of the past but the token ids."""
    model, peaks = build("block").cuda(), []
    for length in (50, 50, 2000):
        torch.cuda.reset_peak_memory_stats()
        model.generate(tokens(2, 5).cuda(), do_sample=False, max_new_tokens=length)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] - peaks[1] < 2**20
