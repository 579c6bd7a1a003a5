"""Question (f): what is read off a model's heads is what the model computes, and silencing one is exact."""

import copy
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from attention_lab.structure import exact_weights
from attention_lab.trained import (
    ablated,
    ablation_effects,
    answer_log_probability,
    answer_weights,
    ask,
    change_without,
    copying_heads,
    head_streams,
    key_spread,
    load_eager,
    name_weights,
    table_of_heads,
    write_head_view,
)
from data_scripts.questions import question_about
from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from tests.attention_variants import tiny_model

QUESTIONS = [
    question_about("Ada Stone", "Rome"),
    question_about("Jean-Béla Őry of Nork", "Győr"),
    question_about("born", "Where"),
]
TEXTS = [f"{question.text} {question.answer}" for question in QUESTIONS]
TOKENIZERS = {"bpe": build_bpe_tokenizer(TEXTS, 290, 96), "characters": build_character_tokenizer(TEXTS, 96)}


@pytest.fixture(params=["vanilla", "bigbird", "linformer"], scope="module")
def model(request):
    """A random model of some attention that shows its weights."""
    return tiny_model(request.param, vocab_size=290, attn_implementation="eager")


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def test_name_answer_and_place_are_found(tokenizer):
    asked = ask(tokenizer, QUESTIONS)
    for row, question in enumerate(QUESTIONS):
        ids = asked.inputs["input_ids"][row]
        named = tokenizer.decode(ids[asked.name[row]])  # a BPE token begins with the space before it
        assert named == question.text[len("Where was ") - (tokenizer is TOKENIZERS["bpe"]) : -len(" born?")]
        assert tokenizer.decode(ids[asked.answer[row]]).strip() == f"{question.answer}{tokenizer.mask_token}"
        assert ids[asked.place[row]] == tokenizer.mask_token_id
        before = tokenizer.decode(ids[: asked.place[row]]).replace(tokenizer.pad_token, "").strip()
        assert before == question.text
        assert asked.reading[row].sum() == asked.answer[row].sum() + 1
        seen = len(tokenizer(question.text + tokenizer.mask_token)["input_ids"])
        assert asked.uniform[row].item() == pytest.approx(asked.name[row].sum().item() / seen)


def test_log_probability_is_the_products_of_one_token_after_the_other(model, tokenizer):
    found = answer_log_probability(model, ask(tokenizer, QUESTIONS))
    for row, question in enumerate(QUESTIONS):
        ids = tokenizer(question.training_text(tokenizer.mask_token), return_tensors="pt").input_ids
        first = ids[0].tolist().index(tokenizer.mask_token_id) + 1
        steps = [model(ids[:, :end]).logits[0, -1].log_softmax(-1)[ids[0, end]] for end in range(first, ids.shape[1])]
        assert found[row].item() == pytest.approx(sum(steps).item(), abs=1e-4)


def test_weights_are_the_models_and_sum_to_one(model, tokenizer):
    asked = ask(tokenizer, QUESTIONS)
    weights = answer_weights(model, asked)  # (L, H, B, T)
    assert weights.shape == (2, 4, *asked.name.shape)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    unseen = (asked.inputs["attention_mask"] == 0) | asked.answer
    assert weights[..., unseen].abs().max() < 1e-6
    for row, question in enumerate(QUESTIONS):
        prompt = tokenizer(question.text + tokenizer.mask_token, return_tensors="pt").input_ids
        alone = torch.stack(model(prompt, output_attentions=True).attentions)[:, 0, :, -1]
        at = ~unseen[row]
        torch.testing.assert_close(weights[:, :, row, at], alone, atol=1e-5, rtol=1e-4)
        named = name_weights(model, asked)[:, :, row]
        torch.testing.assert_close(named, alone[..., asked.name[row][at]].sum(-1), atol=1e-5, rtol=1e-4)


def test_silencing_a_head_is_zeroing_its_columns_of_the_output_projection(model, tokenizer):
    asked = ask(tokenizer, QUESTIONS)
    whole, effects = answer_log_probability(model, asked), ablation_effects(model, asked)
    assert effects.shape == (2, 4, 3)
    assert effects.isfinite().all()
    for layer in range(2):
        for head in range(4):
            other = copy.deepcopy(model)
            other.model.layers[layer].self_attn.o_proj.weight.data[:, head * 8 : (head + 1) * 8] = 0.0
            expected = answer_log_probability(other, asked) - whole
            torch.testing.assert_close(effects[layer, head], expected, atol=1e-5, rtol=1e-4)
            assert expected.abs().max() > 1e-3
    assert torch.equal(answer_log_probability(model, asked), whole)  # no hook stays


def test_silencing_several_heads_and_only_somewhere(model, tokenizer):
    asked = ask(tokenizer, QUESTIONS)
    plain = model(**asked.inputs).logits
    with ablated(model, [(0, 1), (0, 3), (1, 2)], asked.reading):
        late = model(**asked.inputs).logits
    other = copy.deepcopy(model)
    for layer, head in ((0, 1), (0, 3), (1, 2)):
        other.model.layers[layer].self_attn.o_proj.weight.data[:, head * 8 : (head + 1) * 8] = 0.0
    with ablated(model, [(0, 1), (0, 3), (1, 2)], torch.ones_like(asked.reading)):
        torch.testing.assert_close(model(**asked.inputs).logits, other(**asked.inputs).logits, atol=1e-5, rtol=1e-4)
    real = asked.inputs["attention_mask"].bool()
    torch.testing.assert_close(late[real & ~asked.reading], plain[real & ~asked.reading])
    assert (late - plain)[asked.reading].abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("place", [(2, 0), (0, 4), (-1, 0), (0, -1)])
def test_heads_that_do_not_exist_are_refused(model, place):
    with pytest.raises(ValueError, match="2 layers of 4 heads, found layer"), ablated(model, [place]):
        pass


def test_queries_and_keys_are_those_of_the_weights():
    model = tiny_model("vanilla", attn_implementation="eager")
    ids = torch.randint(2, 64, (2, 20), generator=torch.Generator().manual_seed(0))
    weights = model(ids, output_attentions=True).attentions
    for streams, expected in zip(head_streams(model, {"input_ids": ids}), weights, strict=True):
        torch.testing.assert_close(exact_weights(streams.query, streams.key), expected, atol=1e-5, rtol=1e-4)
    assert not any(layer.self_attn._forward_pre_hooks for layer in model.model.layers)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_spread_of_key_norms(qk_norm):
    model = tiny_model("vanilla", vocab_size=290, attn_implementation="eager", qk_norm=qk_norm)
    asked = ask(TOKENIZERS["bpe"], QUESTIONS)
    raw, used = key_spread(model, asked)
    first = model.model.layers[0]
    rows = []
    for ids, mask in zip(asked.inputs["input_ids"], asked.inputs["attention_mask"], strict=True):
        hidden = first.input_layernorm(model.model.embed_tokens(ids[mask.bool()]))
        rows.append((hidden @ first.self_attn.k_proj.weight.T).view(-1, 4, 8).norm(dim=-1))
    norms = torch.cat(rows)
    torch.testing.assert_close(raw[0], norms.std(0) / norms.mean(0), atol=1e-5, rtol=1e-4)
    assert raw.shape == used.shape == (2, 4)
    if qk_norm:
        assert (used < raw).all()
    else:
        torch.testing.assert_close(used, raw, atol=1e-5, rtol=1e-4)


def test_table_of_a_model_that_knows_its_answers(toy):
    asked = ask(toy.tokenizer, toy.questions)
    known = answer_log_probability(toy.model, asked)
    assert known.exp().mean() > 0.5
    rows = table_of_heads(toy.model, asked)
    assert sorted((row["layer"], row["head"]) for row in rows) == [(1 + i // 4, 1 + i % 4) for i in range(8)]
    assert [row["change"] for row in rows] == sorted(row["change"] for row in rows)
    assert rows[0]["change"] < -0.1
    named, effects = name_weights(toy.model, asked).mean(-1), ablation_effects(toy.model, asked).mean(-1)
    for row in rows:
        assert row["name"] == pytest.approx(named[row["layer"] - 1, row["head"] - 1].item())
        assert row["change"] == pytest.approx(effects[row["layer"] - 1, row["head"] - 1].item(), abs=1e-5)
        assert change_without(toy.model, asked, [row]) == pytest.approx(row["change_at_answer"], abs=1e-5)
    last = [row for row in rows if row["layer"] == 2]
    for row in last:  # nothing later reads the last layer, so what it does elsewhere is lost on the answer
        assert row["change"] == pytest.approx(row["change_at_answer"], abs=1e-4)


def test_heads_that_copy_look_at_the_name_and_are_missed():
    rows = [
        {"name": 0.9, "change_at_answer": -0.3},
        {"name": 0.9, "change_at_answer": 0.1},
        {"name": 0.5, "change_at_answer": -2.0},
    ]
    assert copying_heads(rows) == rows[:1]
    assert copying_heads(rows, share=0.4) == [rows[0], rows[2]]


def test_a_saved_model_loads_with_its_weights_to_be_seen(toy, toy_folders):
    model, tokenizer = load_eager(toy_folders[0])
    asked = ask(tokenizer, toy.questions)
    torch.testing.assert_close(answer_weights(model, asked), answer_weights(toy.model, asked))


def test_folders_without_a_minigpt_are_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="no model that can be loaded"):
        load_eager(tmp_path / "nowhere")
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=9)).save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="wanted a minigpt model, found a gpt2"):
        load_eager(tmp_path)


def test_a_view_without_bertviz_says_what_is_missing(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bertviz", None)
    with pytest.raises(ImportError, match="pip install bertviz"):
        write_head_view(toy.model, toy.tokenizer, toy.questions[0].text, tmp_path / "heads.html")
    assert not list(tmp_path.iterdir())
