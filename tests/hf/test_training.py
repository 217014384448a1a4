"""Training: loss, gradients, checkpointing, adapters, devices, outputs; transformers' own Trainer."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn import functional as F

from statemix.hf import StatemixCache
from tests.hf.small import MODELS, V, build, greedy, tokens


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_loss(name):
    model, text = build(name), tokens(2, 8)
    labels = text.clone()
    labels[0, :4] = -100
    outputs = model(text, labels=labels)
    close(outputs.loss, F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
    counted = model(text, labels=labels, num_items_in_batch=torch.tensor(5)).loss
    close(counted, outputs.loss * 11 / 5)  # eleven labels are predicted


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_learns(name):
    model, text = build(name).train(), tokens(4, 8)
    model(text, labels=text).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = model(text, labels=text).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(name, reentrant):
    """The same loss and gradients; layers run a second time in the backward pass."""
    warnings.simplefilter("ignore", FutureWarning)  # of its new name
    text, grads, calls = tokens(2, 8), [], []
    for checkpointed in (False, True):
        model = build(name).train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            assert model.model.gradient_checkpointing
        count = []
        for layer in model.model.layers:
            inner = layer.block if hasattr(layer, "block") else layer.mixer
            inner.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        loss = model(text, labels=text).loss
        loss.backward()
        calls.append(len(count))
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert calls == [2, 4]
    for name_, grad in grads[0].items():
        close(grads[1][name_], grad)


def test_checkpointing_and_a_cache():
    warnings.simplefilter("ignore", FutureWarning)
    model = build().train()
    model.gradient_checkpointing_enable()
    assert not any(isinstance(one, StatemixCache) for one in model(tokens(1, 4), use_cache=True).values())
    with pytest.raises(ValueError, match="cache: got one in training with gradient checkpointing"):
        model(tokens(1, 4), cache=StatemixCache(model.config))
    model.eval()
    assert torch.equal(
        model.generate(tokens(1, 4), do_sample=False, max_new_tokens=5), greedy(model, tokens(1, 4), 5)
    )


@pytest.mark.parametrize("name", MODELS)
def test_logits_to_keep(name):
    model, text = build(name), tokens(2, 8)
    with torch.no_grad():
        whole = model(text).logits
        close(model(text, logits_to_keep=3).logits, whole[:, -3:])
        places = torch.tensor([0, 5, 2])
        close(model(text, logits_to_keep=places).logits, whole[:, places])


@pytest.mark.parametrize("name", MODELS)
def test_outputs(name):
    """Hidden states, tuples, and embeddings in place of tokens."""
    model, text = build(name, attn_implementation="eager"), tokens(2, 8)
    with torch.no_grad():
        outputs = model(text, output_hidden_states=True, output_attentions=True, labels=text)
        assert len(outputs.hidden_states) == 3 and {h.shape for h in outputs.hidden_states} == {(2, 8, 32)}
        close(model.lm_head(outputs.hidden_states[-1]), outputs.logits)
        assert torch.equal(outputs.hidden_states[0], model.get_input_embeddings()(text))
        assert len(outputs.attentions) == (name == "hybrid")
        for attention in outputs.attentions:
            close(attention.sum(-1), torch.ones(2, 4, 8))
        as_tuple = model(text, labels=text, return_dict=False)
        assert torch.equal(as_tuple[0], outputs.loss) and torch.equal(as_tuple[1], outputs.logits)
        embedded = model(inputs_embeds=model.get_input_embeddings()(text)).logits
        assert torch.equal(embedded, outputs.logits)
        assert torch.equal(model(text).logits, outputs.logits)  # no chance in evaluation


def test_hidden_states_keep_gradients():
    model = build("hybrid").train()
    outputs = model(tokens(1, 4), output_hidden_states=True)
    for state in outputs.hidden_states:
        state.retain_grad()
    outputs.logits.sum().backward()
    assert all(state.grad is not None for state in outputs.hidden_states)


def test_dropout_is_for_training():
    model = build("hybrid", dropout=0.5)
    with torch.no_grad():
        assert torch.equal(model(tokens(1, 8)).logits, model(tokens(1, 8)).logits)
        model.train()
        assert not torch.equal(model(tokens(1, 8)).logits, model(tokens(1, 8)).logits)


def test_attention_functions_agree():
    text, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    with torch.no_grad():
        eager, sdpa = (
            build("hybrid", attn_implementation=one)(text, attention_mask=mask).logits
            for one in ("eager", "sdpa")
        )
    close(eager[mask == 1], sdpa[mask == 1])
    with pytest.raises(ImportError, match=r"[Ff]lash"):
        build("hybrid", attn_implementation="flash_attention_2")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore::FutureWarning")
def test_lora(name, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft (extra dev)")
    plain, text = build(name), tokens(2, 8)
    linears = (
        {"gates", "values", "readout_projection"}
        if name != "hybrid"
        else {"gates", "values", "q_proj", "o_proj"}
    )
    settings = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=sorted(linears))
    model = peft.get_peft_model(build(name), settings)
    with torch.no_grad():
        close(model(text).logits, plain(text).logits)  # LoRA starts as the identity
    model.train()
    model(text, labels=text).loss.backward()
    trained = {key for key, p in model.named_parameters() if p.grad is not None}
    assert trained and all("lora" in key for key in trained)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.2)
    model.eval()
    new = model.generate(text, do_sample=False, max_new_tokens=5)
    assert torch.equal(new, greedy(model, text, 5)) and not torch.equal(new, greedy(plain, text, 5))
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(build(name), tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(text).logits, model(text).logits)
        merged = model.merge_and_unload()
        close(merged(text).logits, again(text).logits)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_spread_over_devices(name, tmp_path):
    """accelerate places every layer: what does not fit waits on the disk and comes in for its turn."""
    pytest.importorskip("accelerate", reason="needs accelerate (extra dev)")
    from transformers import AutoModelForCausalLM

    model, text = build(name), tokens(2, 6)
    model.save_pretrained(tmp_path / "model")
    expected = greedy(model, text, 4)
    automatic = AutoModelForCausalLM.from_pretrained(tmp_path / "model", device_map="auto")
    assert torch.equal(automatic.generate(text, do_sample=False, max_new_tokens=4), expected)
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "disk",
              "model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    spread = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk"
    )
    assert any(p.is_meta for p in spread.parameters())
    assert torch.equal(spread.generate(text, do_sample=False, max_new_tokens=4), expected)


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_transformers(tmp_path):
    """Packed documents through Trainer: the loss falls, and the weights come back from its checkpoint."""
    pytest.importorskip("accelerate", reason="needs accelerate (extra dev)")
    from transformers import AutoModelForCausalLM, DataCollatorWithFlattening, Trainer, TrainingArguments

    texts = [{"input_ids": tokens(length, seed=length).tolist()} for length in (5, 9, 3, 7)] * 8
    model = build("block")
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_train_epochs=6, learning_rate=1e-2, report_to=[],
        logging_steps=8, save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=texts, data_collator=DataCollatorWithFlattening())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2
    trainer.save_model(str(tmp_path / "end"))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "end")
    with torch.no_grad():
        close(again(tokens(2, 6)).logits, model.eval()(tokens(2, 6)).logits)
    assert again.config.vocab_size == V
