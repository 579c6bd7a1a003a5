"""The same questions to any causal model: tiny random ones, one that knows all answers, and one that knows none."""

import json
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.modeling_outputs import CausalLMOutput

from benchmarks import harness, knowledge_of_models
from benchmarks.causal_answers import PROMPT, Subject, first_line
from benchmarks.harness import in_this_process, rewrite_report
from benchmarks.knowledge_of_models import main, separate_examples
from configuration.errors import UserError
from data_scripts.question_sets import read_question_set
from data_scripts.questions import question_about
from evaluation.answers import answer_questions
from modeling_minigpt import build_bpe_tokenizer, build_character_tokenizer
from modeling_minigpt.relations_minigpt import BIRTHPLACE
from tests.question_sets import popqa_row, write_entity_questions, write_popqa

PEOPLE = [f"{first} {last}" for first in ("Ada", "Bo", "Cyd", "Dee") for last in ("Stone", "Lind", "Moss", "Finn")]
PLACES = ["Rome", "Oslo", "Bonn", "Győr", "New York"]
FACTS = {name: (PLACES[number % 5], "Elsewhere") for number, name in enumerate(PEOPLE)}


@pytest.fixture(scope="module")
def words():
    """A tokenizer that can write everything."""
    texts = [f"Q: Where was {name} born?\nA: {places[0]}" for name, places in FACTS.items()]
    return build_bpe_tokenizer(texts, 400, 512)


class Scripted(GPT2LMHeadModel):
    """Writes what it was given after each question that it knows, and "Atlantis" after all others."""

    def forward(self, input_ids, attention_mask=None, **options):
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        # The library leaves out a mask that masks nothing.
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        for row, mask, out in zip(input_ids, attention_mask, logits, strict=True):
            start = int(mask.argmax())  # after what fills the row on its left
            text = self.tokenizer.decode(row[start:][mask[start:] == 1])
            question = text[text.rindex("Q: ") + 3 :].partition("\nA:")[0]
            prompt = text[: text.rindex("\nA:") + 3]
            script = self.tokenizer(f"{prompt} {self.script.get(question, 'Atlantis')}\nQ:")["input_ids"]
            for place, token in enumerate(script[1:]):
                if start + place < len(out):
                    out[start + place, token] = 20.0
        return CausalLMOutput(logits=logits)


def scripted(tokenizer, script: dict[str, str], **changes) -> Scripted:
    """Return a model that knows a script."""
    config = {"vocab_size": len(tokenizer), "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 512, **changes}
    model = Scripted(GPT2Config(**config, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)).eval()
    model.generation_config.use_cache = False
    model.tokenizer, model.script = tokenizer, script
    return model


@pytest.fixture
def sets(tmp_path):
    """Both sets about the same people: the words after `--set`."""
    rows = [popqa_row(number, name, FACTS[name], 10**number) for number, name in enumerate(PEOPLE[:12])]
    popqa = write_popqa(tmp_path / "test.tsv", rows)
    entities = write_entity_questions(tmp_path / "P19.test.json", FACTS)
    return ["--set", f"popqa={popqa}", "--set", f"entities={entities}"]


@pytest.fixture
def subjects(words, monkeypatch):
    """By name, a model that knows everything and one that knows nothing; what was loaded, in order."""
    everything = {BIRTHPLACE.format(name): places[0] for name, places in FACTS.items()}
    models = {"knows-all": scripted(words, everything), "knows-none": scripted(words, {}, n_embd=16)}
    loaded = []

    def load(name, dtype, device):
        loaded.append(name)
        return models[name], words

    monkeypatch.setattr(harness, "in_fresh_process", in_this_process)
    monkeypatch.setattr(knowledge_of_models, "load_subject", load)
    return loaded


def test_a_model_that_knows_all_answers_is_right_always_and_one_that_knows_none_never(subjects, sets, tmp_path):
    output = tmp_path / "knowledge_of_models.json"
    options = [*sets, "--candidates", "3", "--output", str(output)]
    assert main(["knows-none", "knows-all", *options]) == 0
    content = json.loads(output.read_text())
    found = {point["subject"]: point["rounds"][0]["sets"] for point in content["points"]}
    for name, scored in (("popqa", 8), ("entities", 12)):  # four people are examples
        assert content["sets"][name]["scored"] == scored
        for model, share in (("knows-all", 1.0), ("knows-none", 0.0)):
            values = found[model][name]
            assert (values["accuracy"], values["contains"], values["ranked"]["accuracy"]) == (share, share, share)
            assert (values["total"], values["not_asked"]) == (scored, 0)
    assert [row["accuracy"] for row in found["knows-all"]["popqa"]["by_popularity"]] == [1.0] * 5
    assert found["knows-all"]["entities"]["by_popularity"] == []
    text = output.with_suffix(".md").read_text()
    assert text.index("| knows-all |") < text.index("| knows-none |")  # by size
    assert "| model | parameters | accuracy | contains | not asked | likeliest of 3 |" in text
    assert "100.0 % (67.6 – 100.0 %)" in text
    assert rewrite_report(output) == text


def test_a_model_that_was_asked_is_not_asked_again_and_other_options_are_refused(subjects, sets, tmp_path, capsys):
    options = [*sets, "--output", str(tmp_path / "knowledge_of_models.json")]
    assert main(["knows-all", *options]) == 0
    assert main(["knows-all", "knows-none", *options]) == 0
    assert subjects == ["knows-all", "knows-none"]
    assert main(["knows-all", *options, "--shots", "2"]) == 2
    assert "has measurements with other settings" in capsys.readouterr().err


def test_a_folder_whose_weights_have_changed_is_asked_again(subjects, sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "knows-all").mkdir()
    weights = tmp_path / "knows-all" / "model.safetensors"
    for text in (b"first", b"first", b"second"):
        weights.write_bytes(text)
        assert main(["knows-all", *sets, "--output", str(tmp_path / "x.json")]) == 0
    assert subjects == ["knows-all", "knows-all"]
    assert "knows-all: the weights have changed" in capsys.readouterr().out


def test_examples_are_about_people_who_are_not_scored_whatever_the_order(sets, tmp_path):
    facts = dict(reversed(FACTS.items()))
    asked = [
        separate_examples(read_question_set("a", str(path), [BIRTHPLACE]), 4)
        for path in (tmp_path / "P19.test.json", write_entity_questions(tmp_path / "reversed.json", facts))
    ]
    assert asked[0].examples == asked[1].examples
    assert len(asked[0].questions) == 12
    assert not {one.name for one in asked[0].questions} & {example.name for example in asked[0].examples}
    with pytest.raises(UserError, match="found 16 people, wanted more than the 16 of --shots"):
        separate_examples(asked[0].of_set, 16)


def test_models_of_the_library_and_ours_are_loaded_by_their_folders_and_a_missing_one_is_named(
    words, sets, tiny_model, tokenizer, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(harness, "in_fresh_process", harness.catch_errors)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shape = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 256}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(words), **shape)).save_pretrained(tmp_path / "gpt2")
    words.save_pretrained(tmp_path / "gpt2")
    tiny_model(max_position_embeddings=128).save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    output = tmp_path / "knowledge_of_models.json"
    options = [*sets, "--candidates", "2", "--questions", "6", "--max-new-tokens", "6", "--output", str(output)]
    folders = [str(tmp_path / name) for name in ("gpt2", "ours", "missing")]
    assert main([*folders, *options]) == 1
    points = {point["subject"]: point["rounds"][0] for point in json.loads(output.read_text())["points"]}
    for folder in folders[:2]:
        values = points[folder]["sets"]["popqa"]
        assert (values["total"], values["not_asked"]) == (6, 0)
        assert points[folder]["parameters"] > 0
    assert "error" in points[folders[2]]
    assert f"- {folders[2]}: " in capsys.readouterr().out


def test_a_minigpt_is_asked_as_it_was_trained_to_be(tiny_model, tokenizer):
    questions = [question_about(name, *places) for name, places in FACTS.items()]
    subject = Subject(tiny_model(), tokenizer, questions[:2], batch_size=5, max_new_tokens=8)
    texts = [question.text for question in questions]
    ours = answer_questions(tiny_model(), tokenizer, texts, max_new_tokens=8)
    assert subject.answer(questions) == [first_line(answer.text) for answer in ours]
    assert subject.prompt(texts[0]) == f"{texts[0]}{tokenizer.mask_token}"


def test_the_log_probability_is_that_of_all_tokens_of_the_answer(words):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=1)).eval()
    subject = Subject(model, words)
    prompt = PROMPT.format(question="Where was Ada Stone born?")
    found = subject.log_probs(prompt, ["Rome", "New York"])
    for text, log_prob in zip((" Rome\n", " New York\n"), found, strict=True):
        before = words(prompt)["input_ids"]
        ids = torch.tensor([words(prompt + text)["input_ids"]])
        log_probs = model(ids).logits[0].log_softmax(-1)
        wanted = [log_probs[place - 1, ids[0, place]].item() for place in range(len(before), ids.shape[1])]
        assert log_prob == pytest.approx(math.fsum(wanted), rel=1e-4)


def test_a_candidate_that_cannot_be_written_is_never_the_likeliest(tiny_model):
    characters = build_character_tokenizer(["Where was Ada Stone born? Rome Oslo"], 64)
    model = tiny_model(vocab_size=len(characters), max_position_embeddings=40).eval()
    subject = Subject(model, characters, max_new_tokens=5)
    question = "Where was Ada Stone born?"
    assert subject.likeliest(question, ["Győr", "Oslo", "R" * 30]) == 1
    assert subject.likeliest(question, ["Oslo", "Rome"]) in (0, 1)


def test_a_question_that_does_not_fit_is_counted_and_a_model_that_none_fits_is_refused(words):
    model = scripted(words, {}, n_positions=60)
    long = question_about("A Very Long Name " * 10 + "Indeed", "Rome")
    subject = Subject(model, words, max_new_tokens=10)
    assert subject.answer([long, question_about("Ada Stone", "Rome")]) == [None, "Atlantis"]
    with pytest.raises(UserError, match=r"context of 60 tokens is too short .* fewer --shots"):
        subject.answer([long])


def test_a_model_whose_tokenizer_can_write_no_question_is_refused(tiny_model):
    characters = build_character_tokenizer(["Where was Ada Stone born? Rome Oslo"], 64)
    subject = Subject(tiny_model(vocab_size=len(characters)), characters)
    with pytest.raises(UserError, match="tokenizer lacks characters of every question"):
        subject.answer([question_about("Győző", "Rome")])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--candidates", "1"], "--candidates must be 0 or at least 2, found 1"),
        (["--candidates", "9"], "other questions that are wrong for it; wanted at most 5"),
        (["--set", "popqa"], "--set popqa: wanted NAME=PATH"),
    ],
)
def test_options_that_mean_nothing_are_refused(sets, options, wanted, capsys):
    assert main(["model", *sets, *options]) == 2
    assert wanted in capsys.readouterr().err
